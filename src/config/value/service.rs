//! Names of SRV records.

use super::{Refusal, host_name};

const EXAMPLE: &str = "\"srv:_postgres._tcp.example.org\"";

/// `_service._tcp.domain` (RFC 2782), in lower case.
pub(super) fn service_name(text: &str) -> Result<String, Refusal> {
    if let Some((name, _)) = text.rsplit_once(':') {
        return Err(Refusal::new(
            format!("`srv:{text}` has a port, and an SRV record brings its own"),
            format!("write \"srv:{name}\""),
        ));
    }
    let name = host_name(text)?;
    let mut labels = name.splitn(3, '.');
    let service = labels.next().and_then(underscored);
    let (protocol, domain) = (labels.next().and_then(underscored), labels.next());
    match (service, protocol, domain) {
        (Some(_), Some("tcp"), Some(_)) => Ok(name),
        (Some(service), Some(protocol), Some(domain)) => Err(Refusal::new(
            format!("`_{protocol}` is not a protocol that is proxied here"),
            format!("only TCP is: \"srv:_{service}._tcp.{domain}\""),
        )),
        _ => Err(Refusal::new(
            format!("`{text}` is not the name of an SRV record"),
            format!("write service, protocol and domain, as in {EXAMPLE} (RFC 2782)"),
        )),
    }
}

fn underscored(label: &str) -> Option<&str> {
    label.strip_prefix('_').filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_its_protocol_and_its_domain() {
        let name = service_name("_Postgres._TCP.Example.org.").unwrap();
        assert_eq!(name, "_postgres._tcp.example.org");
    }

    #[test]
    fn other_names_are_refused_with_the_name_that_was_meant() {
        let cure = |text| service_name(text).unwrap_err().cure;
        assert!(cure("_pg._tcp.example.org:5432").contains("\"srv:_pg._tcp.example.org\""));
        assert!(cure("_pg._udp.example.org").contains("\"srv:_pg._tcp.example.org\""));
        for text in [
            "",
            "example.org",
            "_pg._tcp",
            "pg._tcp.a.org",
            "_._tcp.a.org",
            "_pg.a.org",
        ] {
            assert!(service_name(text).is_err(), "{text}");
        }
    }
}
