use super::openssl;
use super::pki::{Leaf, self_signed};
use super::*;
use crate::config::{CertificatePlan, Diagnostic, Plan, Severity, parse};
use crate::tls::inspect::inspect_at;

/// One listener and one group, with TLS or without.
pub(super) fn plan(listener: Option<DownstreamTls>, upstream: Option<UpstreamTls>) -> Plan {
    let mut plan = parse(
        "x.toml",
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nupstream = \"u\"\n\
         [upstream.u]\nservers = [\"unix:/run/x.sock\"]\n",
    )
    .into_plan()
    .unwrap();
    plan.listeners[0].tls = listener;
    let group = &mut plan.upstreams[0];
    group.tls = upstream;
    group.servers[0].address = located(group.servers[0].address.value.clone());
    plan
}

struct Scene {
    files: Files,
    ca: Authority,
}

fn scene() -> Scene {
    Scene {
        files: Files::new(),
        ca: Authority::root("Root"),
    }
}

impl Scene {
    /// The CA is named, so that chains below it are complete.
    fn findings_for(&self, pair: CertificatePlan) -> Vec<Diagnostic> {
        let plain = DownstreamTls {
            certificates: vec![pair],
            ..listener(&self.files, &self.ca.issue(Leaf::named(HOST)))
        };
        self.findings(demanding(
            plain,
            &self.files,
            &self.ca,
            VerifyClient::Required,
        ))
    }

    fn findings(&self, tls: DownstreamTls) -> Vec<Diagnostic> {
        let findings = inspect_at(
            &plan(Some(tls), None),
            &crate::tls::Files::default(),
            unix_now(),
        );
        for finding in &findings {
            assert_eq!(finding.span, Some(3..7), "{finding:?}");
            assert!(finding.cure.is_some(), "{finding:?}");
        }
        findings
    }

    fn upstream(&self) -> UpstreamTls {
        UpstreamTls {
            server_name: Some(located(HOST.to_owned())),
            ..verifying(&self.files, &self.ca)
        }
    }
}

fn errors_and_warnings(findings: &[Diagnostic]) -> (usize, usize) {
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let errors = findings.iter().filter(is_error).count();
    (errors, findings.len() - errors)
}

/// Exactly one finding, of this severity, with these words in it.
#[track_caller]
fn only(findings: &[Diagnostic], severity: Severity, words: &str) {
    let [finding] = findings else {
        panic!("one finding was expected: {findings:#?}");
    };
    assert_eq!(finding.severity, severity, "{finding:?}");
    assert!(finding.message.contains(words), "{finding:?}");
}

#[test]
fn good_files_give_no_finding() {
    let scene = scene();
    let middle = scene.ca.below("Middle");
    for issued in [
        scene.ca.issue(Leaf::named(HOST)),
        middle.issue(Leaf::named(HOST)),
    ] {
        assert_eq!(scene.findings_for(scene.files.pair(&issued)), []);
    }
    let client = Leaf {
        uri: Some("spiffe://example.org/a"),
        ..Leaf::default()
    };
    let upstream = UpstreamTls {
        client_certificate: Some(scene.files.pair(&scene.ca.issue(client))),
        ..scene.upstream()
    };
    assert_eq!(
        inspect_at(
            &plan(None, Some(upstream)),
            &crate::tls::Files::default(),
            unix_now()
        ),
        []
    );
}

#[test]
fn expired_and_not_yet_valid_certificates_are_errors_and_soon_expiring_ones_warnings() {
    let scene = scene();
    let now = unix_now();
    for (begins, ends, severity, words) in [
        (
            1_600_000_000,
            1_709_210_000,
            Severity::Error,
            "expired on 2024-02-29",
        ),
        (
            4_070_908_800,
            4_080_000_000,
            Severity::Error,
            "not valid before 2099-01-01",
        ),
        (now - DAY, now + 29 * DAY, Severity::Warning, "expires on"),
    ] {
        let issued = scene.ca.issue(Leaf {
            begins,
            ends,
            ..Leaf::named(HOST)
        });
        only(
            &scene.findings_for(scene.files.pair(&issued)),
            severity,
            words,
        );
    }
    let issued = scene.ca.issue(Leaf {
        ends: now + 31 * DAY,
        ..Leaf::named(HOST)
    });
    assert_eq!(scene.findings_for(scene.files.pair(&issued)), []);
}

#[test]
fn a_weak_rsa_key_is_one_error() {
    let scene = scene();
    let weak = Issued {
        chain_pem: openssl::WEAK_CERTIFICATE.to_owned(),
        key_pem: openssl::WEAK_KEY.to_owned(),
        der: scene.ca.der(),
    };
    let findings = scene.findings_for(scene.files.pair(&weak));
    let about_the_key: Vec<_> = findings
        .into_iter()
        .filter(|finding| !finding.message.contains("not valid before"))
        .collect();
    only(
        &about_the_key,
        Severity::Error,
        "RSA key of weak.example has 1024 bits",
    );
}

#[test]
fn a_ca_as_leaf_and_a_server_without_san_are_errors() {
    let scene = scene();
    let ca_leaf = scene.ca.issue(Leaf {
        is_ca: true,
        ..Leaf::named(HOST)
    });
    only(
        &scene.findings_for(scene.files.pair(&ca_leaf)),
        Severity::Error,
        "CA:TRUE",
    );
    let nameless = scene.ca.issue(Leaf::default());
    let findings = scene.findings_for(scene.files.pair(&nameless));
    only(&findings, Severity::Error, "no subjectAltName");
    let upstream = UpstreamTls {
        client_certificate: Some(scene.files.pair(&nameless)),
        ..scene.upstream()
    };
    let findings = inspect_at(
        &plan(None, Some(upstream)),
        &crate::tls::Files::default(),
        unix_now(),
    );
    only(&findings, Severity::Warning, "no subjectAltName");
}

#[test]
fn a_chain_in_the_wrong_order_is_an_error_and_one_that_may_be_incomplete_a_warning() {
    let scene = scene();
    let middle = scene.ca.below("Middle");
    let issued = middle.issue(Leaf::named(HOST));
    let leaf_only = issued
        .chain_pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next()
        .unwrap();
    let with_chain = |chain_pem: String| {
        let key_pem = issued.key_pem.clone();
        let der = issued.der.clone();
        scene.findings_for(scene.files.pair(&Issued {
            chain_pem,
            key_pem,
            der,
        }))
    };
    let stranger = Authority::root("Stranger");
    let findings = with_chain(leaf_only.to_owned() + &stranger.pem() + &middle.pem());
    only(
        &findings,
        Severity::Error,
        "certificate 2 (Stranger) did not issue",
    );
    // The same name, another key.
    let namesake = scene.ca.below("Middle");
    let findings = with_chain(leaf_only.to_owned() + &namesake.pem());
    only(
        &findings,
        Severity::Error,
        "certificate 2 (Middle) did not issue",
    );
    only(
        &with_chain(leaf_only.to_owned()),
        Severity::Warning,
        "chain ends below Middle",
    );
    let rooted = leaf_only.to_owned() + &middle.pem() + &scene.ca.pem();
    assert_eq!(with_chain(rooted), []);
    let alone = self_signed(Leaf::named(HOST));
    assert_eq!(scene.findings_for(scene.files.pair(&alone)), []);
}

#[test]
fn a_key_that_does_not_fit_is_an_error_also_when_the_certificate_is_out_of_date() {
    let scene = scene();
    let mut issued = scene.ca.issue(Leaf {
        begins: 1000,
        ends: 2000,
        ..Leaf::named(HOST)
    });
    issued.key_pem = scene.ca.issue(Leaf::named(HOST)).key_pem;
    let findings = scene.findings_for(scene.files.pair(&issued));
    assert_eq!(errors_and_warnings(&findings), (2, 0), "{findings:#?}");
    assert!(
        findings
            .iter()
            .any(|finding| finding.message.contains("does not belong to"))
    );
}

#[test]
fn keys_that_everyone_can_read_are_warnings() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    let pair = scene.files.pair(&scene.ca.issue(Leaf::named(HOST)));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&pair.private_key.value, open.clone()).unwrap();
    let findings = scene.findings_for(pair);
    only(
        &findings,
        Severity::Warning,
        "every user of this host can read the private key",
    );

    let mut tls = listener(&scene.files, &scene.ca.issue(Leaf::named(HOST)));
    tls = demanding(tls, &scene.files, &scene.ca, VerifyClient::Required);
    let key = scene.files.bytes("ticket.key", &[1; 80]);
    std::fs::set_permissions(&key.value, open).unwrap();
    tls.resumption.ticket_key_files = vec![key];
    only(
        &scene.findings(tls),
        Severity::Warning,
        "can read the session ticket key",
    );
}

#[test]
fn a_certificate_that_demands_a_staple_and_has_none_is_a_warning() {
    let scene = scene();
    let issued = scene.ca.issue(Leaf {
        must_staple: true,
        ..Leaf::named(HOST)
    });
    only(
        &scene.findings_for(scene.files.pair(&issued)),
        Severity::Warning,
        "clients refuse leaf without an OCSP response",
    );
}

#[test]
fn every_unreadable_file_is_reported_not_the_first_only() {
    let scene = scene();
    let missing = |name: &str| path(PathBuf::from("/nonexistent").join(name));
    let mut tls = DownstreamTls {
        certificates: vec![CertificatePlan {
            certificate: missing("a.crt"),
            private_key: missing("a.key"),
            ocsp_response: Some(missing("a.ocsp")),
        }],
        client_ca: Some(missing("ca.crt")),
        crl: Some(missing("a.crl")),
        verify_client: VerifyClient::Required,
        ..listener(&scene.files, &scene.ca.issue(Leaf::named(HOST)))
    };
    tls.resumption.ticket_key_files = vec![missing("ticket.key")];
    let findings = scene.findings(tls);
    assert_eq!(errors_and_warnings(&findings), (6, 0), "{findings:#?}");
}

#[test]
fn a_ca_file_without_a_ca_is_an_error_and_one_with_a_leaf_a_warning() {
    let scene = scene();
    let with_ca = |ca: Located<PathBuf>| {
        let plain = listener(&scene.files, &self_signed(Leaf::named(HOST)));
        scene.findings(DownstreamTls {
            client_ca: Some(ca),
            verify_client: VerifyClient::Required,
            ..plain
        })
    };
    only(
        &with_ca(scene.files.pem("ca", "")),
        Severity::Error,
        "the file is empty",
    );
    let text = scene.files.pem("ca", "# nothing yet\n");
    only(
        &with_ca(text),
        Severity::Error,
        "no certificate in this file",
    );
    let leaf = scene.ca.issue(Leaf::named(HOST));
    let findings = with_ca(scene.files.pem("ca", &leaf.chain_pem));
    only(&findings, Severity::Warning, "leaf is no CA");
}

#[test]
fn revocation_lists_are_held_against_the_cas() {
    let scene = scene();
    let with_lists = |lists: String| {
        let plain = listener(&scene.files, &scene.ca.issue(Leaf::named(HOST)));
        scene.findings(DownstreamTls {
            crl: Some(scene.files.pem("crl", &lists)),
            ..demanding(plain, &scene.files, &scene.ca, VerifyClient::Required)
        })
    };
    let good = scene.ca.revocation_list(&[7], unix_now() + DAY);
    assert_eq!(with_lists(good.clone()), []);
    let old = scene.ca.revocation_list(&[7], 1_709_210_000);
    only(
        &with_lists(old),
        Severity::Warning,
        "out of date since 2024-02-29",
    );
    let strange = Authority::root("Stranger").revocation_list(&[], unix_now() + DAY);
    let findings = with_lists(good + &strange);
    only(
        &findings,
        Severity::Warning,
        "no CA of the CA file issued the revocation list of Stranger",
    );
    let findings = with_lists(strange);
    assert_eq!(errors_and_warnings(&findings), (0, 2));
    assert!(
        findings[1].message.contains("no revocation list of Root"),
        "{findings:?}"
    );
    only(
        &with_lists("no list".to_owned()),
        Severity::Error,
        "no revocation list in this file",
    );
}

#[test]
fn an_upstream_that_cannot_be_verified_by_any_name_is_an_error() {
    let scene = scene();
    let upstream = UpstreamTls {
        server_name: None,
        ..scene.upstream()
    };
    let findings = inspect_at(
        &plan(None, Some(upstream)),
        &crate::tls::Files::default(),
        unix_now(),
    );
    only(
        &findings,
        Severity::Error,
        "no name to verify the certificate of unix:/run/x.sock by",
    );
    assert_eq!(findings[0].span, Some(3..7));
}
