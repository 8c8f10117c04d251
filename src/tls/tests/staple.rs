use std::time::SystemTime;

use ringway_support::ocsp::{Responder, Status, ago, ahead, with_times};
use ringway_support::pki::{self, Credential};
use rustls::SignatureScheme;

use super::*;
use crate::config::{CertificatePlan, Diagnostic, FileKind, Severity};
use crate::tls;
use crate::tls::inspect::inspect_at;
use crate::tls::material::{self, MaterialError};
use crate::tls::ocsp::{Good, Response, Subject, Unfit};
use crate::tls::staple::Staple;

/// A CA whose certificate is in the chains of its leafs, or a root, which is not.
struct Scene {
    files: Files,
    ca: pki::Authority,
    leaf: Credential,
}

impl Scene {
    fn below(ca: pki::Authority) -> Self {
        Self {
            files: Files::new(),
            leaf: ca.issue(&pki::Leaf::server(HOST)),
            ca,
        }
    }

    fn with_issuer() -> Self {
        Self::below(pki::Authority::root("Root").intermediate("Middle"))
    }

    fn without_issuer() -> Self {
        Self::below(pki::Authority::root("Root"))
    }

    fn good(&self) -> Vec<u8> {
        Responder::of(&self.ca).answer(&self.leaf)
    }

    fn plan(&self, response: &[u8]) -> CertificatePlan {
        CertificatePlan {
            certificate: path(self.leaf.certificate.clone()),
            private_key: path(self.leaf.private_key.clone()),
            ocsp_response: Some(self.files.bytes("leaf.ocsp", response)),
        }
    }

    fn listener(&self, response: &[u8]) -> DownstreamTls {
        listening(vec![self.plan(response)])
    }

    fn load(&self, response: &[u8]) -> Result<Staple, MaterialError> {
        let (files, plan) = (tls::Files::default(), self.plan(response));
        let chain = material::certificates(&files, &plan.certificate).unwrap();
        Staple::load(&files, &plan, &chain).map(Option::unwrap)
    }

    fn refused(&self, response: &[u8], words: &str) {
        let error = self.load(response).unwrap_err();
        assert_eq!(error.span, Some(3..7));
        assert!(error.what.contains(words), "{}: not {words:?}", error.what);
        assert!(error.cure.is_some());
        // Check and reload say the same.
        let findings = self.findings(response);
        let said = |it: &Diagnostic| it.severity == Severity::Error && it.message.contains(words);
        assert!(findings.iter().any(said), "{findings:#?}");
    }

    fn findings(&self, response: &[u8]) -> Vec<Diagnostic> {
        let plan = check::plan(Some(self.listener(response)), None);
        let mut findings = inspect_at(&plan, &tls::Files::default(), unix_now());
        // The root is none of this host's.
        findings.retain(|it| !it.message.contains("which is no root known here"));
        findings
    }

    fn warned(&self, response: &[u8], words: &str) {
        let findings = self.findings(response);
        let [finding] = &findings[..] else {
            panic!("one finding was expected: {findings:#?}");
        };
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.message.contains(words), "{finding:?}");
        assert!(finding.cure.is_some());
    }
}

#[test]
fn a_response_for_the_certificate_is_taken_whoever_of_its_ca_has_signed_it() {
    for scene in [Scene::with_issuer(), Scene::without_issuer()] {
        let responder = scene.ca.issue(&pki::Leaf::responder("Responder"));
        for response in [
            scene.good(),
            Responder::of(&scene.ca)
                .signer(&responder)
                .answer(&scene.leaf),
            Responder::of(&scene.ca).answer_by_hashes(&scene.leaf, &["-sha256"]),
            Responder::of(&scene.ca).answer_by_hashes(&scene.leaf, &["-sha1", "-sha512"]),
        ] {
            let staple = scene.load(&response).unwrap();
            assert_eq!(staple.response, response);
            assert_eq!(staple.name, HOST);
            let until = staple.validity.until.unwrap();
            assert_eq!(until - staple.validity.from, 7 * DAY);
            assert_eq!(scene.findings(&response), []);
        }
    }
}

#[test]
fn a_response_for_another_certificate_is_refused() {
    let scene = Scene::with_issuer();
    let other = scene.ca.issue(&pki::Leaf::server(HOST));
    let response = Responder::of(&scene.ca).answer(&other);
    let hex = |credential: &Credential| {
        let octets = credential.serial().to_be_bytes();
        let octets = octets.iter().skip_while(|octet| **octet == 0);
        let octets: Vec<_> = octets.map(|octet| format!("{octet:02x}")).collect();
        octets.join(":")
    };
    let words = format!("is for serial number {}, {HOST} in", hex(&other));
    scene.refused(&response, &words);
    scene.refused(&response, &format!("has {}", hex(&scene.leaf)));

    // The leaf's own serial number and issuer name, with a stranger's key.
    let stranger = pki::Authority::root("Root");
    let words = "for a certificate of another CA";
    scene.refused(&Responder::of(&stranger).answer(&scene.leaf), words);

    let scene = Scene::without_issuer();
    let mut response = scene.good();
    let leaf = tls::certificate::parse(&scene.leaf.chain[0]).unwrap();
    let sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let name = aws_lc_rs::digest::digest(sha1, leaf.issuer().as_raw());
    let at = response
        .windows(name.as_ref().len())
        .position(|it| it == name.as_ref())
        .unwrap();
    response[at] ^= 1;
    scene.refused(&response, words);
}

#[test]
fn a_response_that_does_not_say_good_is_refused() {
    let scene = Scene::with_issuer();
    let said = |status| Responder::of(&scene.ca).status(status).answer(&scene.leaf);
    scene.refused(&said(Status::Revoked), "was revoked on 2026-01-02");
    scene.refused(&said(Status::Unknown), "does not know");
    scene.refused(&[0x30, 3, 0x0a, 1, 3], "gave no answer: tryLater");
    scene.refused(&[0x30, 3, 0x0a, 1, 6], "gave no answer: unauthorized");
}

#[test]
fn a_response_that_no_responder_of_the_issuer_has_signed_is_refused() {
    let scene = Scene::with_issuer();
    let words = "signed neither by the issuer";
    let other = scene.ca.issue(&pki::Leaf::server("other.example"));
    let response = Responder::of(&scene.ca).signer(&other).answer(&scene.leaf);
    scene.refused(&response, words);
    let (from, until) = (ago(HOUR), ahead(HOUR));
    scene.refused(&with_times(&scene.good(), from, until), words);
    // Without the issuer only a client can tell.
    let scene = Scene::without_issuer();
    let response = with_times(&scene.good(), from, until);
    assert_eq!(scene.findings(&response), []);
}

#[test]
fn a_response_whose_signature_is_too_weak_is_not_called_forged_and_the_cure_is_another_signature() {
    let scene = Scene::with_issuer();
    let rsa = scene.ca.issue(&pki::Leaf::responder("Old").rsa());
    let leaf = pki::Leaf::responder("Weak");
    let short = scene.ca.issue_for_key(&leaf, openssl::WEAK_KEY);
    let of = |signer| Responder::of(&scene.ca).signer(signer);
    let sha1 = Responder::of(&scene.ca).signing_hash("sha1");
    let sha224 = of(&rsa).signing_hash("sha224");
    for (responder, with) in [
        (sha1, "SHA-1 with ECDSA"),
        (of(&rsa).signing_hash("sha1"), "SHA-1 with RSA"),
        (sha224, "the algorithm 1.2.840.113549.1.1.14"),
        (of(&short), "an RSA key of 1024 bits"),
    ] {
        let response = responder.answer(&scene.leaf);
        let words = format!("is signed with {with}, which clients refuse");
        scene.refused(&response, &words);
        let cure = scene.load(&response).unwrap_err().cure.unwrap();
        assert!(cure.contains("sign with SHA-256"), "{cure}");
    }
    for strong in ["sha256", "sha384", "sha512"] {
        let response = of(&rsa).signing_hash(strong).answer(&scene.leaf);
        assert_eq!(scene.findings(&response), []);
    }
}

#[test]
fn what_is_no_response_is_refused() {
    let scene = Scene::with_issuer();
    let words = "this is not an OCSP response in DER";
    let good = scene.good();
    let mut longer = good.clone();
    longer.push(0);
    for bad in [
        &longer[..],
        b"",
        b"-----BEGIN",
        &[0x30],
        &[0x30, 0x80, 0, 0],
        &[0x30, 3, 0x0a, 1, 0],
        &[0x30, 5, 0x0a, 1, 0, 0xa0, 0],
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x0a, 1, 0],
        &good[..good.len() / 2],
    ] {
        scene.refused(bad, words);
    }
}

/// What a response is good for, of whose bytes nothing is known.
fn judged(response: &[u8], subject: &Subject<'_>) -> Result<Good, Unfit> {
    Response::parse(response)?.good_for(subject)
}

#[test]
fn a_response_that_is_cut_off_or_changed_anywhere_is_never_a_panic_and_never_stapled() {
    for scene in [Scene::with_issuer(), Scene::without_issuer()] {
        let responder = scene.ca.issue(&pki::Leaf::responder("Responder"));
        let delegated = Responder::of(&scene.ca).signer(&responder);
        let subject = Subject::of(&scene.leaf.chain).unwrap();
        for good in [scene.good(), delegated.answer(&scene.leaf)] {
            judged(&good, &subject).unwrap();
            for cut in 0..good.len() {
                judged(&good[..cut], &subject).unwrap_err();
            }
            let vouched_for = vouched_for(&good);
            let mut bytes = good.clone();
            for at in 0..good.len() {
                for flip in [0x01, 0x80, 0xff] {
                    bytes[at] ^= flip;
                    let outcome = judged(&bytes, &subject);
                    let must_fail = subject.issuer.is_some() && vouched_for(at);
                    assert!(outcome.is_err() || !must_fail, "{at} {flip}: {outcome:?}");
                    bytes[at] ^= flip;
                }
            }
        }
    }
}

/// Whether a byte is signed, or of the signature.
fn vouched_for(response: &[u8]) -> impl Fn(usize) -> bool + use<> {
    let parsed = Response::parse(response).unwrap();
    let ranges = [parsed.signed, parsed.signature].map(|part| {
        let at = response.windows(part.len()).position(|it| it == part);
        at.unwrap()..at.unwrap() + part.len()
    });
    move |at| ranges.iter().any(|range| range.contains(&at))
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_not_stapled_now_and_what_never_ends_is_warned_of() {
    let scene = Scene::without_issuer();
    let good = scene.good();
    let dated = |from: SystemTime, until: SystemTime| with_times(&good, from, until);
    let words = "is out of date since 20";
    scene.warned(&dated(ago(HOUR * 48), ago(HOUR)), words);
    let words = "is not valid before 20";
    scene.warned(&dated(ahead(HOUR), ahead(HOUR * 48)), words);
    let endless = Responder::of(&scene.ca).without_next_update();
    scene.warned(&endless.answer(&scene.leaf), "has no nextUpdate");
}

#[test]
fn a_response_counts_no_longer_than_the_certificate_of_the_responder_that_signed_it() {
    let scene = Scene::with_issuer();
    let signed_by = |leaf: pki::Leaf| {
        let signer = scene.ca.issue(&leaf);
        Responder::of(&scene.ca).signer(&signer).answer(&scene.leaf)
    };
    let responder = || pki::Leaf::responder("Responder");
    let staple = scene.load(&signed_by(responder().ends_in(HOUR))).unwrap();
    let until = staple.validity.until.unwrap();
    assert!(until <= unix_now() + HOUR.as_secs(), "{until}");
    assert!(staple.next_update.unwrap() > until + 6 * DAY);

    let words = "the certificate of the responder that signed the OCSP response for";
    let expired = signed_by(responder().expired());
    scene.warned(&expired, words);
    for version in BOTH {
        let server = server_tls(&scene.listener(&expired));
        assert_eq!(shown(&server, version), None);
    }
    let words = "is not valid before 20";
    scene.warned(&signed_by(responder().not_yet_valid()), words);

    let signer = scene.ca.issue(&responder());
    let endless = Responder::of(&scene.ca).signer(&signer);
    let endless = endless.without_next_update().answer(&scene.leaf);
    let words = "has no nextUpdate: it is stapled until 20";
    scene.warned(&endless, words);
}

#[test]
fn ends_tell_when_a_response_is_out_of_date() {
    let scene = Scene::with_issuer();
    let ends_of = |response: &[u8]| {
        let plan = check::plan(Some(scene.listener(response)), None);
        let ends = tls::ends(&plan, &tls::Files::default()).into_iter();
        let of_responses = ends.filter(|it| it.kind == FileKind::OcspResponse);
        of_responses.collect::<Vec<_>>()
    };
    let ends = ends_of(&scene.good());
    let [ends] = &ends[..] else {
        panic!("one response was expected: {ends:#?}");
    };
    assert_eq!((&*ends.table, &*ends.name), ("listener.l", HOST));
    assert_eq!(ends.at - ends.from, 7 * DAY);
    let endless = Responder::of(&scene.ca).without_next_update();
    assert_eq!(ends_of(&endless.answer(&scene.leaf)), []);
}

/// The staple that a client of this version is shown.
fn shown(server: &ServerTls, version: Version) -> Option<Vec<u8>> {
    let verifier = Arc::new(Lenient::offering(&[SignatureScheme::ECDSA_NISTP256_SHA256]));
    let ca = Authority::root("Any");
    let mut config = plain_client(&ca, version, None);
    config
        .dangerous()
        .set_certificate_verifier(verifier.clone());
    connect(&by_name(&Arc::new(config), HOST), &server.for_core()).unwrap();
    let stapled = verifier.stapled.get().unwrap().clone();
    (!stapled.is_empty()).then_some(stapled)
}

#[test]
fn a_response_is_stapled_from_its_begin_to_its_end_and_no_longer() {
    let scene = Scene::without_issuer();
    let (from, until) = (ahead(HOUR), ahead(HOUR * 48));
    let response = with_times(&scene.good(), from, until);
    let server = server_tls(&scene.listener(&response));
    let set = |time: SystemTime| {
        let ahead = time.duration_since(SystemTime::now()).unwrap_or_default();
        CLOCK_AHEAD.set(ahead.as_secs());
    };
    let minute = Duration::from_secs(60);
    for version in BOTH {
        for (time, stapled) in [
            (SystemTime::now(), false),
            (from + minute, true),
            (until - minute, true),
            (until + minute, false),
        ] {
            set(time);
            let expected = stapled.then(|| response.clone());
            assert_eq!(shown(&server, version), expected, "{version:?} {time:?}");
        }
    }
}
