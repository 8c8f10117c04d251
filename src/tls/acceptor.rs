use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use webpki::KeyUsage;

use super::bound::PeerBound;
use super::files::Files;
use super::gate;
use super::identity::PeerSeen;
use super::key_log::KeyTap;
use super::material::{self, MaterialError, RevocationList};
use super::policy;
use super::resolver::CertificateResolver;
use super::sessions::ServerSessions;
use super::staple::Served;
use super::tickets::{Clock, KeyRing, PolicyDigest, Ticketer};
use super::verify::{ChainRules, ClientDemand, ClientVerifier, earliest_list_end};
use crate::config::{DownstreamTls, IdentityPattern, NamePattern, VerifyClient};
use crate::types::unix_now;

/// TLS of one listener: built once, shared by all cores.
#[derive(Debug)]
pub struct ServerTls {
    base: ServerConfig,
    certificates: Vec<Served>,
    /// `None`: clients are not asked for certificates.
    pub(super) verifier: Option<Arc<ClientVerifier>>,
    allow: Vec<IdentityPattern>,
    /// `None`: no session IDs.
    cache: Option<CacheRules>,
    key_log: Option<KeyTap>,
    clock: Clock,
}

/// Of each core's cache for clients that resume by session ID.
#[derive(Debug)]
struct CacheRules {
    sessions_max: usize,
    lifetime_secs: u64,
    authenticates: bool,
}

impl ServerTls {
    /// Opens what the plan names. `keys` are the ticket keys; a ring outlives a reload, so that
    /// sessions do.
    ///
    /// # Errors
    /// A file cannot be used; the error says which, why, and what to do.
    pub fn new(plan: &DownstreamTls, keys: &Arc<KeyRing>) -> Result<Self, MaterialError> {
        Self::of_files(&Files::default(), (plan, keys), None)
    }

    /// The same, of files that were read before. `before` is the listener's TLS until now, whose way
    /// to the key log goes on.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_files(
        files: &Files,
        (plan, keys): (&DownstreamTls, &Arc<KeyRing>),
        before: Option<&Self>,
    ) -> Result<Self, MaterialError> {
        let before = before.and_then(Self::key_log);
        let key_log = plan.key_log.as_ref().map(|plan| KeyTap::new(plan, before));
        Ok(Self {
            key_log: key_log.transpose()?,
            ..Self::with_clock(files, (plan, keys), unix_now)?
        })
    }

    /// Without the key log.
    pub(super) fn with_clock(
        files: &Files,
        (plan, keys): (&DownstreamTls, &Arc<KeyRing>),
        clock: Clock,
    ) -> Result<Self, MaterialError> {
        let certificates = plan
            .certificates
            .iter()
            .map(|plan| Served::load(files, plan))
            .collect::<Result<Vec<_>, _>>()?;
        let clients = ClientRules::load(files, plan)?;
        let policy = clients.digest(plan, &certificates);
        let builder = builder(plan, clock)?;
        let algorithms = builder.crypto_provider().signature_verification_algorithms;
        let verifier = client_verifier(plan, clients, algorithms).map(Arc::new);
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut base =
            builder.with_cert_resolver(Arc::new(CertificateResolver::new(&certificates, clock)));
        base.ignore_client_order = true;
        base.enable_secret_extraction = true;
        base.alpn_protocols.clone_from(&plan.alpn);
        base.session_storage = Arc::new(NoServerSessionStorage {});
        base.send_tls13_tickets = 0;
        let mut tls = Self {
            base,
            certificates,
            verifier,
            allow: patterns(plan),
            cache: None,
            key_log: None,
            clock,
        };
        if plan.resumption.enabled {
            tls.resume(plan, keys, policy);
        }
        Ok(tls)
    }

    fn resume(&mut self, plan: &DownstreamTls, keys: &Arc<KeyRing>, policy: PolicyDigest) {
        let authenticates = plan.verify_client != VerifyClient::Off;
        self.base.send_tls13_tickets = plan.resumption.tickets;
        self.base.ticketer = Arc::new(Ticketer {
            ring: Arc::clone(keys),
            policy,
            authenticates,
            clock: self.clock,
        });
        self.cache = (plan.resumption.cache_max > 0).then_some(CacheRules {
            sessions_max: plan.resumption.cache_max,
            lifetime_secs: plan.resumption.lifetime.as_secs(),
            authenticates,
        });
    }

    /// A core's own copy, with its own session cache. Call it on the core's thread, once.
    #[must_use]
    pub fn for_core(&self) -> Arc<ServerConfig> {
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(CertificateResolver::new(&self.certificates, self.clock));
        if let Some(rules) = &self.cache {
            config.session_storage = Arc::new(ServerSessions::new(
                rules.sessions_max,
                rules.lifetime_secs,
                rules.authenticates,
                self.clock,
            ));
        }
        Arc::new(config)
    }

    /// A core's configuration for clients whose secrets are logged, if there may be any. Sessions are
    /// those of `config`.
    #[must_use]
    pub fn with_key_log(&self, config: &ServerConfig) -> Option<Arc<ServerConfig>> {
        self.key_log.as_ref().map(|tap| {
            let mut config = config.clone();
            config.key_log = tap.log();
            Arc::new(config)
        })
    }

    /// Where secrets are logged, if they are.
    #[must_use]
    pub fn key_log(&self) -> Option<&KeyTap> {
        self.key_log.as_ref()
    }

    /// Whether the secrets of this client's connections are logged.
    #[must_use]
    pub fn logs_keys_of(&self, client: Option<IpAddr>) -> bool {
        let tap = self.key_log.as_ref();
        tap.is_some_and(|tap| tap.plan().covers(client))
    }

    /// The client of a finished handshake, full or resumed: `certificates` are the connection's
    /// `peer_certificates()`, `bound` is the one that its calls ran under.
    #[must_use]
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>, bound: &PeerBound) -> PeerSeen {
        PeerSeen::judge(certificates, bound, &self.allow)
    }
}

/// rustls asks the same clock as tickets and caches do.
#[derive(Debug)]
pub(super) struct RustlsTime(pub(super) Clock);

impl TimeProvider for RustlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            (self.0)(),
        )))
    }
}

fn builder(
    plan: &DownstreamTls,
    clock: Clock,
) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, MaterialError> {
    let provider = gate::guard_exchanges(&policy::provider(&plan.policy));
    ServerConfig::builder_with_details(Arc::new(provider), Arc::new(RustlsTime(clock)))
        .with_protocol_versions(&policy::versions(plan.policy.versions))
        .map_err(|_| policy::unusable(&plan.policy))
}

/// What clients are measured by.
struct ClientRules {
    anchors: Vec<TrustAnchor<'static>>,
    revocation_lists: Vec<RevocationList>,
}

impl ClientRules {
    fn load(files: &Files, plan: &DownstreamTls) -> Result<Self, MaterialError> {
        let anchors = match (&plan.client_ca, plan.verify_client) {
            (_, VerifyClient::Off) => Vec::new(),
            (Some(file), _) => material::bundle_anchors(files, file)?,
            (None, VerifyClient::OptionalNoCa) => Vec::new(),
            (None, _) => {
                return Err(MaterialError::nowhere("verify_client needs client_ca")
                    .with_cure("set client_ca to the file of CAs that issue client certificates"));
            }
        };
        let revocation_lists = match &plan.crl {
            Some(file) => material::revocation_lists(files, file)?,
            None => Vec::new(),
        };
        Ok(Self {
            anchors,
            revocation_lists,
        })
    }

    /// Everything that decides who may pass and whom the server claims to be. The same files give
    /// the same digest on every host.
    fn digest(&self, plan: &DownstreamTls, certificates: &[Served]) -> PolicyDigest {
        let mut hash = PolicyHash::new();
        hash.text("ringway listener policy v1");
        hash.text(match plan.verify_client {
            VerifyClient::Off => "off",
            VerifyClient::Optional => "optional",
            VerifyClient::Required => "required",
            VerifyClient::OptionalNoCa => "optional-no-ca",
        });
        hash.bytes(&plan.verify_depth.to_be_bytes());
        hash.list(self.anchors.iter(), |hash, anchor| {
            hash.bytes(&anchor.subject);
            hash.bytes(&anchor.subject_public_key_info);
            hash.bytes(anchor.name_constraints.as_deref().unwrap_or_default());
        });
        hash.list(self.revocation_lists.iter(), |hash, list| {
            hash.bytes(&list.der)
        });
        hash.list(plan.allow_identities.iter(), |hash, allowed| {
            hash.identity(&allowed.value)
        });
        hash.list(certificates.iter(), |hash, served| {
            if let Some(key) = served.certified.key.public_key() {
                hash.bytes(&key);
            }
        });
        hash.finish()
    }
}

/// SHA-256 over length-prefixed parts, so that no two lists of parts look the same.
struct PolicyHash(digest::Context);

impl PolicyHash {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn bytes(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    fn text(&mut self, part: &str) {
        self.bytes(part.as_bytes());
    }

    fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.0.update(&(items.len() as u64).to_be_bytes());
        for item in items {
            each(self, item);
        }
    }

    fn identity(&mut self, pattern: &IdentityPattern) {
        let (kind, value) = match pattern {
            IdentityPattern::Dns(NamePattern::Exact(name)) => ("dns", name.as_bytes()),
            IdentityPattern::Dns(NamePattern::Wildcard(parent)) => ("dns-below", parent.as_bytes()),
            IdentityPattern::Uri(uri) => ("uri", uri.as_bytes()),
            IdentityPattern::CommonName(name) => ("cn", name.as_bytes()),
            IdentityPattern::SpkiSha256(pin) => ("spki-sha256", &pin[..]),
        };
        self.text(kind);
        self.bytes(value);
    }

    fn finish(self) -> PolicyDigest {
        let mut result = [0; 32];
        result.copy_from_slice(self.0.finish().as_ref());
        result
    }
}

fn client_verifier(
    plan: &DownstreamTls,
    clients: ClientRules,
    algorithms: WebPkiSupportedAlgorithms,
) -> Option<ClientVerifier> {
    let demand = match plan.verify_client {
        VerifyClient::Off => return None,
        VerifyClient::Optional => ClientDemand::Optional,
        VerifyClient::Required => ClientDemand::Required,
        VerifyClient::OptionalNoCa => ClientDemand::OptionalNoCa,
    };
    let lists_end = earliest_list_end(&clients.revocation_lists);
    let lists = clients.revocation_lists.into_iter();
    let rules = ChainRules {
        anchors: clients.anchors,
        revocation_lists: lists.map(|list| list.parsed).collect(),
        lists_end,
        depth_max: plan.verify_depth,
        usage: KeyUsage::client_auth(),
        algorithms,
    };
    Some(ClientVerifier::new(rules, demand, patterns(plan)))
}

fn patterns(plan: &DownstreamTls) -> Vec<IdentityPattern> {
    plan.allow_identities
        .iter()
        .map(|allowed| allowed.value.clone())
        .collect()
}
