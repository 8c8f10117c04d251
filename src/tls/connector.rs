use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use webpki::KeyUsage;

use super::acceptor::RustlsTime;
use super::bound::PeerBound;
use super::files::Files;
use super::identity::PeerSeen;
use super::key_log::KeyTap;
use super::material::{self, MaterialError};
use super::policy;
use super::sessions::ClientSessions;
use super::tickets::Clock;
use super::verify::{ChainRules, ServerVerifier, earliest_list_end};
use crate::config::{Located, ServerAddress, UpstreamAlpn, UpstreamTls};
use crate::types::unix_now;

/// TLS of one upstream group: built once, shared by all cores.
///
/// The configurations of all its endpoints share one verifier and one client certificate, which
/// rustls compares before it resumes a session.
#[derive(Debug)]
pub struct ClientTls {
    base: ClientConfig,
    pub(super) verifier: Arc<ServerVerifier>,
    server_name: Option<Located<String>>,
    verify: bool,
    alpn: UpstreamAlpn,
    session_reuse: bool,
    key_log: Option<KeyTap>,
    clock: Clock,
    keeps_shown: bool,
}

/// One server of a group on one core.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub config: Arc<ClientConfig>,
    /// The same, with the same sessions, for clients whose secrets are logged.
    pub logged: Option<Arc<ClientConfig>>,
    /// For SNI and for the check of the certificate's names.
    pub name: ServerName<'static>,
}

impl Endpoint {
    /// The server name that goes into the ClientHello: none for an IP address (RFC 6066 3).
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        match &self.name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        }
    }
}

impl ClientTls {
    /// # Errors
    /// A file cannot be used; the error says which, why, and what to do.
    pub fn new(plan: &UpstreamTls) -> Result<Self, MaterialError> {
        Self::of_files(&Files::default(), plan, None)
    }

    /// The same, of files that were read before. `before` is the group's TLS until now, whose way to
    /// the key log goes on.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_files(
        files: &Files,
        plan: &UpstreamTls,
        before: Option<&Self>,
    ) -> Result<Self, MaterialError> {
        let before = before.and_then(Self::key_log);
        let key_log = plan.key_log.as_ref().map(|plan| KeyTap::new(plan, before));
        Ok(Self {
            key_log: key_log.transpose()?,
            ..Self::with_clock(files, plan, unix_now)?
        })
    }

    /// Without the key log.
    pub(super) fn with_clock(
        files: &Files,
        plan: &UpstreamTls,
        clock: Clock,
    ) -> Result<Self, MaterialError> {
        let provider = policy::provider(&plan.policy);
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(ServerVerifier {
            rules: chain_rules(files, plan, algorithms)?,
            algorithms,
        });
        let builder = ClientConfig::builder_with_details(provider, Arc::new(RustlsTime(clock)))
            .with_protocol_versions(&policy::versions(plan.policy.versions))
            .map_err(|_| policy::unusable(&plan.policy))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut base = match &plan.client_certificate {
            Some(certificate) => builder.with_client_cert_resolver(Arc::new(
                SingleCertAndKey::from(material::certified_key(files, certificate)?),
            )),
            None => builder.with_no_client_auth(),
        };
        base.enable_secret_extraction = true;
        base.resumption = Resumption::disabled();
        if let UpstreamAlpn::Fixed(protocols) = &plan.alpn {
            base.alpn_protocols.clone_from(protocols);
        }
        let tls = Self {
            base,
            verifier,
            server_name: plan.server_name.clone(),
            verify: plan.verify,
            alpn: plan.alpn.clone(),
            session_reuse: plan.session_reuse,
            key_log: None,
            clock,
            keeps_shown: plan.close_revoked.is_some(),
        };
        tls.configured_name()?;
        Ok(tls)
    }

    /// A core's own copy for one server, with its own session store. Call it on the core's thread,
    /// once per server, and keep the result: the sessions live as long as it does.
    ///
    /// # Errors
    /// There is no name to verify the server's certificate by.
    pub fn for_endpoint(&self, server: &ServerAddress) -> Result<Endpoint, MaterialError> {
        let name = self.name_for(server)?;
        let mut config = self.base.clone();
        if self.session_reuse {
            config.resumption = Resumption::store(Arc::new(ClientSessions::new(self.clock)));
        }
        let logged = self.key_log.as_ref().map(|tap| {
            let mut config = config.clone();
            config.key_log = tap.log();
            Arc::new(config)
        });
        Ok(Endpoint {
            config: Arc::new(config),
            logged,
            name,
        })
    }

    /// For a check of one server: what its connections verify and show, and no session. A resumed
    /// handshake would verify nothing, and the cores' stores are theirs.
    ///
    /// # Errors
    /// As [`for_endpoint`](Self::for_endpoint).
    pub fn for_check(&self, server: &ServerAddress) -> Result<Endpoint, MaterialError> {
        Ok(Endpoint {
            config: Arc::new(self.base.clone()),
            logged: None,
            name: self.name_for(server)?,
        })
    }

    /// The endpoint for a connection that is made for this client.
    #[must_use]
    pub fn facing(&self, endpoint: &Endpoint, client: Option<IpAddr>) -> Endpoint {
        let logged = endpoint.logged.as_ref();
        let logged = logged.filter(|_| self.logs_keys_of(client));
        Endpoint {
            config: Arc::clone(logged.unwrap_or(&endpoint.config)),
            ..endpoint.clone()
        }
    }

    /// Where secrets are logged, if they are.
    #[must_use]
    pub fn key_log(&self) -> Option<&KeyTap> {
        self.key_log.as_ref()
    }

    /// Whether the secrets of connections that are made for this client are logged.
    #[must_use]
    pub fn logs_keys_of(&self, client: Option<IpAddr>) -> bool {
        let tap = self.key_log.as_ref();
        tap.is_some_and(|tap| tap.plan().covers(client))
    }

    /// The protocols to offer, for `new_with_alpn`. `from_client`: what the listener agreed on.
    #[must_use]
    pub fn alpn(&self, from_client: Option<&[u8]>) -> Vec<Vec<u8>> {
        match &self.alpn {
            UpstreamAlpn::FromClient => from_client.map(<[u8]>::to_vec).into_iter().collect(),
            UpstreamAlpn::Fixed(protocols) => protocols.clone(),
        }
    }

    /// The server of a finished handshake, full or resumed: `certificates` are the connection's
    /// `peer_certificates()`, `bound` is the one that its calls ran under.
    #[must_use]
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>, bound: &PeerBound) -> PeerSeen {
        PeerSeen::judge(certificates, bound, &[])
    }

    /// Whether sessions keep what their servers have shown: see `close_revoked`.
    #[must_use]
    pub fn keeps_shown(&self) -> bool {
        self.keeps_shown
    }

    pub(super) fn name_for(
        &self,
        server: &ServerAddress,
    ) -> Result<ServerName<'static>, MaterialError> {
        if let Some(name) = self.configured_name()? {
            return Ok(name);
        }
        match server {
            ServerAddress::Ip(address) => Ok(ServerName::IpAddress(address.ip().into())),
            ServerAddress::Name { host, .. } => ServerName::try_from(host.clone())
                .map_err(|_| unusable_name(MaterialError::nowhere, host)),
            // Never looked at, and an IP address is not sent as SNI.
            ServerAddress::Unix(_) | ServerAddress::Service(_) if !self.verify => Ok(
                ServerName::IpAddress(IpAddr::from(Ipv4Addr::UNSPECIFIED).into()),
            ),
            ServerAddress::Unix(_) | ServerAddress::Service(_) => Err(MaterialError::nowhere(
                format!("no name to verify the certificate of {server} by"),
            )
            .with_cure("set server_name to the name in the server's certificate")),
        }
    }

    fn configured_name(&self) -> Result<Option<ServerName<'static>>, MaterialError> {
        let parse = |name: &Located<String>| {
            ServerName::try_from(name.value.clone())
                .map_err(|_| unusable_name(|what| MaterialError::at(name, what), &name.value))
        };
        self.server_name.as_ref().map(parse).transpose()
    }
}

fn unusable_name(error: impl FnOnce(String) -> MaterialError, name: &str) -> MaterialError {
    error(format!("`{name}` is neither a DNS name nor an IP address"))
        .with_cure("set server_name to the name in the server's certificate")
}

fn chain_rules(
    files: &Files,
    plan: &UpstreamTls,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
) -> Result<Option<ChainRules>, MaterialError> {
    if !plan.verify {
        return Ok(None);
    }
    let revocation_lists = match &plan.crl {
        Some(file) => material::revocation_lists(files, file)?,
        None => Vec::new(),
    };
    Ok(Some(ChainRules {
        anchors: material::trust_anchors(files, &plan.trust)?,
        lists_end: earliest_list_end(&revocation_lists),
        revocation_lists: revocation_lists
            .into_iter()
            .map(|list| list.parsed)
            .collect(),
        depth_max: plan.verify_depth,
        usage: KeyUsage::server_auth(),
        algorithms,
    }))
}
