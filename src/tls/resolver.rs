//! Which certificate a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::extensions::GeneralName;

use super::ocsp::Validity;
use super::staple::Served;
use super::tickets::Clock;
use super::{certificate, reason};

/// Chooses by server name (exact, then wildcard, then the default), then by what signatures the
/// client verifies. Names come from the certificates' SANs.
#[derive(Debug)]
pub(super) struct CertificateResolver {
    certificates: Vec<Candidate>,
    exact: HashMap<String, Choice>,
    /// Under the parent: `*.example.org` stands under `example.org`.
    wildcard: HashMap<String, Choice>,
    default: Choice,
    clock: Clock,
}

#[derive(Debug)]
struct Candidate {
    bare: Arc<CertifiedKey>,
    stapled: Option<(Validity, Arc<CertifiedKey>)>,
}

impl Candidate {
    fn new(served: &Served) -> Self {
        let stapled = served.staple.as_ref().map(|staple| {
            let mut certified = served.certified.clone();
            certified.ocsp = Some(staple.response.clone());
            (staple.validity, Arc::new(certified))
        });
        Self {
            bare: Arc::new(served.certified.clone()),
            stapled,
        }
    }

    /// A client that is shown a response out of date refuses the connection, one that is shown
    /// none mostly asks for itself. The clock is read in full handshakes alone.
    fn at(&self, clock: Clock) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((validity, stapled)) if validity.holds(clock()) => stapled,
            _ => &self.bare,
        }
    }
}

/// Indices of certificates that serve one name, cheapest handshake first.
type Choice = Vec<usize>;

impl CertificateResolver {
    /// The first certificate is the default, with those of other key types for the same names.
    pub(super) fn new(certificates: &[Served], clock: Clock) -> Self {
        let names: Vec<Vec<String>> = certificates.iter().map(names_of).collect();
        let mut resolver = Self {
            certificates: certificates.iter().map(Candidate::new).collect(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: (0..certificates.len())
                .filter(|at| names[*at] == names[0])
                .collect(),
            clock,
        };
        for at in cheapest_first(certificates) {
            for name in &names[at] {
                let choice = match name.strip_prefix("*.") {
                    Some(parent) => resolver.wildcard.entry(parent.to_owned()).or_default(),
                    None => resolver.exact.entry(name.clone()).or_default(),
                };
                choice.push(at);
            }
        }
        let order = cheapest_first(certificates);
        resolver
            .default
            .sort_by_key(|at| order.iter().position(|other| other == at));
        resolver
    }

    fn choice(&self, server_name: Option<&str>) -> &Choice {
        let Some(name) = server_name.map(str::to_ascii_lowercase) else {
            return &self.default;
        };
        self.exact
            .get(&name)
            .or_else(|| self.wildcard.get(name.split_once('.')?.1))
            .unwrap_or(&self.default)
    }

    /// `None`: the client verifies no signature that the name's certificates can make.
    fn choose(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let choice = self.choice(server_name);
        let mut candidates = choice.iter().map(|at| &self.certificates[*at]);
        let fits = |it: &&Candidate| it.bare.key.choose_scheme(schemes).is_some();
        candidates
            .find(fits)
            .map(|it| Arc::clone(it.at(self.clock)))
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(client_hello.server_name(), client_hello.signature_schemes());
        if chosen.is_none() {
            reason::note_no_certificate();
        }
        chosen
    }
}

/// An RSA signature costs ten times an ECDSA one; among equals the file's order holds.
fn cheapest_first(certificates: &[Served]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..certificates.len()).collect();
    order.sort_by_key(|at| certificates[*at].certified.key.algorithm() == SignatureAlgorithm::RSA);
    order
}

/// DNS names of the SAN, in lower case and in order.
fn names_of(served: &Served) -> Vec<String> {
    let mut names = served
        .certified
        .cert
        .first()
        .map(dns_names)
        .unwrap_or_default();
    names.sort();
    names.dedup();
    names
}

fn dns_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Some(parsed) = certificate::parse(leaf) else {
        return Vec::new();
    };
    let Some(alternative) = certificate::alternative_names(&parsed) else {
        return Vec::new();
    };
    let names = alternative.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
