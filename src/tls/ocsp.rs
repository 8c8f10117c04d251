//! OCSP responses as RFC 6960 4.2.1 writes them: whose status they tell, which, and for how long.
//!
//! The bytes are the operator's file, so nothing in them may panic; whoever reads the staple trusts
//! the signature alone, which is therefore verified wherever the issuer is at hand.

use aws_lc_rs::digest::{self, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::certificate::{self, printable, seconds, signs_ocsp, weak_rsa_bits};
use super::verify;
use crate::types::UnixSeconds;

/// Why a response cannot be stapled to a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    NotAResponse,
    /// The responder gave no answer, by this word of RFC 6960.
    NoAnswer(&'static str),
    /// It names certificates by these serial numbers.
    OtherSerial(Vec<u8>),
    OtherIssuer,
    Forged,
    /// By this, with which no signature counts.
    WeaklySigned(String),
    Revoked(UnixSeconds),
    Unknown,
}

/// When a response may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: UnixSeconds,
    /// `None`: the responder knows news at any time.
    pub(super) until: Option<UnixSeconds>,
}

impl Validity {
    const UNBOUNDED: Self = Self {
        from: 0,
        until: None,
    };

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            from: seconds(validity.not_before),
            until: Some(seconds(validity.not_after)),
        }
    }

    pub(super) fn holds(self, now: UnixSeconds) -> bool {
        self.from <= now && !self.is_over(now)
    }

    pub(super) fn is_over(self, now: UnixSeconds) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: self.until.into_iter().chain(other.until).min(),
        }
    }
}

/// For how long a response may be shown that says `good`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Good {
    /// While the certificate of the responder that signed it is valid, too.
    pub(super) validity: Validity,
    pub(super) next_update: Option<UnixSeconds>,
}

/// Whom a response is to speak of.
pub(super) struct Subject<'a> {
    pub(super) leaf: X509Certificate<'a>,
    /// `None`: not in the chain.
    pub(super) issuer: Option<(X509Certificate<'a>, &'a CertificateDer<'a>)>,
}

impl<'a> Subject<'a> {
    /// The first certificate of a chain. `None`: it cannot be read.
    pub(super) fn of(chain: &'a [CertificateDer<'a>]) -> Option<Self> {
        let leaf = certificate::parse(chain.first()?)?;
        let issuer = chain.iter().find_map(|der| {
            let issuer = certificate::parse(der)?;
            let named = issuer.subject().as_raw() == leaf.issuer().as_raw();
            (named && verify::is_issued_by(&leaf, der)).then_some((issuer, der))
        });
        Some(Self { leaf, issuer })
    }
}

/// A response with its answers, not yet held against a certificate.
#[derive(Debug)]
pub(super) struct Response<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    /// AlgorithmIdentifier, without tag and length.
    algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    /// By whom it may be signed.
    certificates: Vec<CertificateDer<'a>>,
    answers: Vec<Answer<'a>>,
}

/// SingleResponse: the status of one certificate.
#[derive(Debug)]
struct Answer<'a> {
    /// `None`: none that clients name certificates by.
    hash: Option<&'static digest::Algorithm>,
    issuer_name: &'a [u8],
    issuer_key: &'a [u8],
    serial: &'a [u8],
    status: Status,
    validity: Validity,
}

#[derive(Debug, Clone, Copy)]
enum Status {
    Good,
    Revoked(UnixSeconds),
    Unknown,
}

impl<'a> Response<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Unfit> {
        let (status, bytes) = envelope(der).ok_or(Unfit::NotAResponse)?;
        if let Some(word) = refusal(status) {
            return Err(Unfit::NoAnswer(word));
        }
        bytes.and_then(basic).ok_or(Unfit::NotAResponse)
    }

    /// For how long it says that the certificate is good.
    pub(super) fn good_for(&self, subject: &Subject<'_>) -> Result<Good, Unfit> {
        let serial = subject.leaf.tbs_certificate.raw_serial();
        let mut of_serial = self.answers.iter().filter(|it| it.serial == serial);
        let mut own = of_serial.clone().filter(|it| it.names_issuer(subject));
        let Some(first) = own.next() else {
            let named = self.answers.first().map_or(&[][..], |it| it.serial);
            return Err(match of_serial.next() {
                Some(_) => Unfit::OtherIssuer,
                None => Unfit::OtherSerial(named.to_vec()),
            });
        };
        let signer = match &subject.issuer {
            Some((_, issuer)) => self.signer(issuer)?,
            None => Validity::UNBOUNDED,
        };
        // One certificate may be named by several hashes, for clients of all ages.
        let answers = own.try_fold(first.good()?, |all, it| Ok(all.and(it.good()?)))?;
        Ok(Good {
            validity: answers.and(signer),
            next_update: answers.until,
        })
    }

    /// For how long its signature counts: the issuer's own always, that of a responder that the
    /// issuer has certified (RFC 6960 4.2.2.2) while this certificate is valid.
    fn signer(&self, issuer: &CertificateDer<'_>) -> Result<Validity, Unfit> {
        if !verify::is_verified(self.algorithm) {
            return Err(Unfit::WeaklySigned(algorithm_words(self.algorithm)));
        }
        if self.is_signed_by(issuer) {
            return Ok(Validity::UNBOUNDED);
        }
        let responders: Vec<_> = self.responders(issuer).collect();
        if let Some((responder, _)) = responders.iter().find(|(_, der)| self.is_signed_by(der)) {
            return Ok(Validity::of(responder));
        }
        let weak = responders.iter().find_map(|(it, _)| weak_rsa_bits(it));
        Err(weak.map_or(Unfit::Forged, |bits| {
            Unfit::WeaklySigned(format!("an RSA key of {bits} bits"))
        }))
    }

    fn is_signed_by(&self, signer: &CertificateDer<'_>) -> bool {
        verify::is_signed_by(signer, self.signed, self.signature)
    }

    /// Those among its certificates to which the issuer has left its responses.
    fn responders(
        &self,
        issuer: &CertificateDer<'_>,
    ) -> impl Iterator<Item = (X509Certificate<'_>, &CertificateDer<'a>)> {
        let certificates = self.certificates.iter();
        let parsed = certificates.filter_map(|der| Some((certificate::parse(der)?, der)));
        parsed.filter(|(it, _)| signs_ocsp(it) && verify::is_issued_by(it, issuer))
    }
}

impl Answer<'_> {
    /// The name is in the leaf, the key in the issuer alone.
    fn names_issuer(&self, subject: &Subject<'_>) -> bool {
        let Some(algorithm) = self.hash else {
            return false;
        };
        let is = |hash: &[u8], of: &[u8]| digest(algorithm, of).as_ref() == hash;
        let key_is = |(issuer, _): &(X509Certificate<'_>, _)| {
            is(
                self.issuer_key,
                &issuer.public_key().subject_public_key.data,
            )
        };
        is(self.issuer_name, subject.leaf.issuer().as_raw())
            && subject.issuer.as_ref().is_none_or(key_is)
    }

    fn good(&self) -> Result<Validity, Unfit> {
        match self.status {
            Status::Good => Ok(self.validity),
            Status::Revoked(at) => Err(Unfit::Revoked(at)),
            Status::Unknown => Err(Unfit::Unknown),
        }
    }
}

/// OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED, responseBytes [0] EXPLICIT OPTIONAL }
fn envelope(der: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut file = Der(der);
    let mut response = Der(file.take(SEQUENCE)?);
    let status = response.take(ENUMERATED)?;
    let bytes = response.take(context(0));
    (file.is_empty() && response.is_empty()).then_some((status, bytes))
}

/// `None`: successful.
fn refusal(status: &[u8]) -> Option<&'static str> {
    match status {
        [0] => None,
        [1] => Some("malformedRequest"),
        [2] => Some("internalError"),
        [3] => Some("tryLater"),
        [5] => Some("sigRequired"),
        [6] => Some("unauthorized"),
        _ => Some("an error that RFC 6960 does not know"),
    }
}

/// ResponseBytes ::= SEQUENCE { responseType OBJECT IDENTIFIER, response OCTET STRING }, in which
/// BasicOCSPResponse ::= SEQUENCE { tbsResponseData, signatureAlgorithm, signature BIT STRING,
/// certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
fn basic(bytes: &[u8]) -> Option<Response<'_>> {
    let mut typed = Der(Der(bytes).take(SEQUENCE)?);
    typed.take(OBJECT_IDENTIFIER).filter(|it| *it == BASIC)?;
    let mut basic = Der(Der(typed.take(OCTET_STRING)?).take(SEQUENCE)?);
    let data = basic.element(SEQUENCE)?;
    let algorithm = basic.take(SEQUENCE)?;
    // The first octet counts unused bits, of which a signature has none.
    let signature = basic.take(BIT_STRING)?.strip_prefix(&[0])?;
    let certificates = match basic.take(context(0)) {
        Some(certificates) => Der(Der(certificates).take(SEQUENCE)?).all(SEQUENCE)?,
        None => Vec::new(),
    };
    let certificates = certificates.into_iter().map(|it| it.whole.into());
    Some(Response {
        signed: data.whole,
        algorithm,
        signature,
        certificates: certificates.collect(),
        answers: answers(data.contents)?,
    })
}

/// ResponseData ::= SEQUENCE { version [0] EXPLICIT DEFAULT v1, responderID, producedAt,
/// responses SEQUENCE OF SingleResponse, responseExtensions [1] EXPLICIT OPTIONAL }
fn answers(data: &[u8]) -> Option<Vec<Answer<'_>>> {
    let mut data = Der(data);
    let _version = data.take(context(0));
    let _responder = data.any()?;
    let _produced_at = data.time()?;
    let answers = Der(data.take(SEQUENCE)?).all(SEQUENCE)?;
    answers.into_iter().map(|it| answer(it.contents)).collect()
}

/// SingleResponse ::= SEQUENCE { certID SEQUENCE { hashAlgorithm, issuerNameHash OCTET STRING,
/// issuerKeyHash OCTET STRING, serialNumber INTEGER }, certStatus, thisUpdate,
/// nextUpdate [0] EXPLICIT OPTIONAL, singleExtensions [1] EXPLICIT OPTIONAL }
fn answer(bytes: &[u8]) -> Option<Answer<'_>> {
    let mut answer = Der(bytes);
    let mut id = Der(answer.take(SEQUENCE)?);
    Some(Answer {
        hash: hash(Der(id.take(SEQUENCE)?).take(OBJECT_IDENTIFIER)?),
        issuer_name: id.take(OCTET_STRING)?,
        issuer_key: id.take(OCTET_STRING)?,
        serial: id.take(INTEGER)?,
        status: status(answer.any()?)?,
        validity: Validity {
            from: answer.time()?,
            until: match answer.take(context(0)) {
                Some(time) => Some(Der(time).time()?),
                None => None,
            },
        },
    })
}

/// CertStatus ::= CHOICE { good [0], revoked [1] { revocationTime, ... }, unknown [2] }, IMPLICIT
fn status(element: Element<'_>) -> Option<Status> {
    match element.kind {
        (Class::ContextSpecific, Tag(0)) => Some(Status::Good),
        (Class::ContextSpecific, Tag(1)) => Der(element.contents).time().map(Status::Revoked),
        (Class::ContextSpecific, Tag(2)) => Some(Status::Unknown),
        _ => None,
    }
}

fn hash(identifier: &[u8]) -> Option<&'static digest::Algorithm> {
    match identifier {
        // 1.3.14.3.2.26, what RFC 5019 asks for. It protects nothing here: the signature does.
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        // 2.16.840.1.101.3.4.2.1 to .3
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last] => match last {
            1 => Some(&digest::SHA256),
            2 => Some(&digest::SHA384),
            3 => Some(&digest::SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// An AlgorithmIdentifier that is not verified, in words where responders are known to use it.
fn algorithm_words(identifier: &[u8]) -> String {
    let oid = Der(identifier).take(OBJECT_IDENTIFIER).unwrap_or_default();
    let oid = Oid::new(oid.into()).to_id_string();
    match oid.as_str() {
        "1.2.840.113549.1.1.5" => "SHA-1 with RSA".to_owned(),
        "1.2.840.10045.4.1" => "SHA-1 with ECDSA".to_owned(),
        _ => format!("the algorithm {}", printable(&oid)),
    }
}

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

type Kind = (Class, Tag);

const INTEGER: Kind = (Class::Universal, Tag::Integer);
const BIT_STRING: Kind = (Class::Universal, Tag::BitString);
const OCTET_STRING: Kind = (Class::Universal, Tag::OctetString);
const OBJECT_IDENTIFIER: Kind = (Class::Universal, Tag::Oid);
const ENUMERATED: Kind = (Class::Universal, Tag::Enumerated);
const SEQUENCE: Kind = (Class::Universal, Tag::Sequence);
const GENERALIZED_TIME: Kind = (Class::Universal, Tag::GeneralizedTime);

const fn context(number: u32) -> Kind {
    (Class::ContextSpecific, Tag(number))
}

/// Elements of DER, one after the other; one that is not of the kind asked for stays.
struct Der<'a>(&'a [u8]);

struct Element<'a> {
    kind: Kind,
    contents: &'a [u8],
    /// With tag and length.
    whole: &'a [u8],
}

impl<'a> Der<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&self) -> Option<(Element<'a>, &'a [u8])> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let element = Element {
            kind: (any.class(), any.tag()),
            contents: any.as_bytes(),
            whole: self.0.get(..self.0.len().checked_sub(rest.len())?)?,
        };
        Some((element, rest))
    }

    fn any(&mut self) -> Option<Element<'a>> {
        let (element, rest) = self.next()?;
        self.0 = rest;
        Some(element)
    }

    fn element(&mut self, kind: Kind) -> Option<Element<'a>> {
        let (element, rest) = self.next().filter(|(it, _)| it.kind == kind)?;
        self.0 = rest;
        Some(element)
    }

    /// The contents of the next element.
    fn take(&mut self, kind: Kind) -> Option<&'a [u8]> {
        self.element(kind).map(|it| it.contents)
    }

    /// All that there are, if they are of one kind.
    fn all(mut self, kind: Kind) -> Option<Vec<Element<'a>>> {
        let mut elements = Vec::new();
        while !self.is_empty() {
            elements.push(self.element(kind)?);
        }
        Some(elements)
    }

    fn time(&mut self) -> Option<UnixSeconds> {
        let element = self.element(GENERALIZED_TIME)?;
        let (_, time) = ASN1Time::from_der(element.whole).ok()?;
        Some(seconds(time))
    }
}
