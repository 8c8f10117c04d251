use super::pki::Leaf;
use super::*;
use crate::config::NamePattern;
use crate::tls::{ClientTls, Standing};
use crate::types::Alert;

const SERIAL: u64 = 77;

fn client(ca: &Authority) -> Issued {
    ca.issue(Leaf {
        serial: SERIAL,
        ..Leaf::named("pay.example.org")
    })
}

/// What the listener `plan` says now of a client that shows `shown`.
fn of_client(plan: &DownstreamTls, shown: &Issued) -> Standing {
    server_tls(plan).judge_again(&shown.chain(), unix_now())
}

fn expect_withdrawn(standing: &Standing, cause: Cause, alert: u8, words: &str) {
    let withdrawn = standing.as_ref().unwrap_err();
    assert_eq!((withdrawn.cause, withdrawn.alert), (cause, Alert(alert)));
    assert!(withdrawn.words.contains(words), "{withdrawn:?}");
}

/// Every way in which a new plan may think otherwise of a client that an old one had let in.
#[test]
fn a_client_is_judged_by_lists_cas_and_names_as_they_are_now() {
    let (files, ca) = (Files::new(), Authority::root("Client CA"));
    let shown = client(&ca);
    let own = ca.issue(Leaf::named(HOST));
    let plan = || demanding(listener(&files, &own), &files, &ca, VerifyClient::Required);
    let until = of_client(&plan(), &shown).unwrap();
    assert!(until > unix_now() && until < UnixSeconds::MAX);

    let lists = |serials: &[u64]| ca.revocation_list(serials, unix_now() + DAY);
    let clean = DownstreamTls {
        crl: Some(files.pem("clean.pem", &lists(&[SERIAL + 1]))),
        ..plan()
    };
    let until_list_ends = of_client(&clean, &shown).unwrap();
    assert!(
        until_list_ends < until,
        "the list ends before the certificate"
    );
    let revoking = DownstreamTls {
        crl: Some(files.pem("revoking.pem", &lists(&[SERIAL]))),
        ..plan()
    };
    expect_withdrawn(
        &of_client(&revoking, &shown),
        Cause::Certificate,
        44,
        "revoked",
    );

    let other = Authority::root("Another CA");
    let foreign = demanding(
        listener(&files, &own),
        &files,
        &other,
        VerifyClient::Required,
    );
    expect_withdrawn(
        &of_client(&foreign, &shown),
        Cause::Certificate,
        48,
        "issuer",
    );

    let name = NamePattern::Exact("books.example.org".to_owned());
    let elsewhere = DownstreamTls {
        allow_identities: vec![located(IdentityPattern::Dns(name))],
        ..plan()
    };
    let standing = of_client(&elsewhere, &shown);
    expect_withdrawn(&standing, Cause::Identity, 46, "pay.example.org");

    let later = server_tls(&plan()).judge_again(&shown.chain(), unix_now() + 365 * DAY);
    expect_withdrawn(&later, Cause::Certificate, 45, "expired");
    let unasked = of_client(&listener(&files, &own), &shown);
    assert_eq!(
        unasked,
        Ok(UnixSeconds::MAX),
        "nobody asks for certificates now"
    );
}

#[test]
fn a_server_is_judged_by_its_name_too_and_not_at_all_where_nothing_is_verified() {
    let (files, ca) = (Files::new(), Authority::root("Server CA"));
    let shown = ca.issue(Leaf::named(HOST));
    let plan = |verify: bool, ca: &Authority| UpstreamTls {
        verify,
        ..verifying(&files, ca)
    };
    let judge = |plan: &UpstreamTls, name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        let tls = ClientTls::new(plan).unwrap();
        tls.judge_again(&shown.chain(), &name, unix_now())
    };
    assert!(judge(&plan(true, &ca), HOST).is_ok());
    let standing = judge(&plan(true, &ca), "other.example");
    expect_withdrawn(&standing, Cause::Certificate, 42, "other.example");
    let foreign = plan(true, &Authority::root("Another CA"));
    expect_withdrawn(&judge(&foreign, HOST), Cause::Certificate, 48, "issuer");
    assert!(judge(&plan(false, &ca), "other.example").is_ok());
}
