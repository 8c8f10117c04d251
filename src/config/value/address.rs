use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::plan::{BindAddress, ServerAddress};

use super::service::service_name;
use super::{Refusal, host_name};

/// sockaddr_un holds 108 bytes, the closing zero among them (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// "0.0.0.0:443", "[::]:443" or "unix:/run/x.sock"; a relative path starts at `base`.
pub(in crate::config) fn bind_address(text: &str, base: &Path) -> Result<BindAddress, Refusal> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, base).map(BindAddress::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return unmapped(address, text).map(BindAddress::Tcp);
    }
    let port = text.rsplit(':').next().unwrap_or(text);
    let every = text.strip_prefix("*:").or_else(|| text.strip_prefix(':'));
    if every.unwrap_or(text).parse::<u16>().is_ok() {
        return Err(Refusal::new(
            format!("`{text}` does not say on which address to listen"),
            format!(
                "write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for every IPv6 one, or both in an array"
            ),
        ));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(without_port(address));
    }
    Err(Refusal::new(
        format!("`{text}` is not an address to listen on"),
        "write an IP address and a port, \"0.0.0.0:443\" or \"[::]:443\", or a path, \"unix:/run/ringway/x.sock\"; host names are not looked up here",
    ))
}

/// "10.0.5.21:443", "[2001:db8::1]:443", "backend.example.com:443", "unix:/run/x.sock" or
/// "srv:_postgres._tcp.example.org".
pub(in crate::config) fn server_address(text: &str, base: &Path) -> Result<ServerAddress, Refusal> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, base).map(ServerAddress::Unix);
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return service_name(name).map(ServerAddress::Service);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Refusal::new(
            format!("`{text}` is a URL, and a server is only an address"),
            format!(
                "leave `{scheme}://` out and name the port: \"{}\"",
                with_port(rest, scheme)
            ),
        ));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return some_port(address.port(), text)
            .and_then(|()| unmapped(address, text))
            .map(ServerAddress::Ip);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(without_port(address));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Refusal::new(
            format!("the server `{text}` has no port"),
            format!("write \"{text}:443\", with the server's port"),
        ));
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or_else(|| {
        Refusal::new(
            format!("`{port}` is not a port"),
            format!("write a number from 1 to 65535: \"{host}:443\""),
        )
    })?;
    some_port(port, text)?;
    if numeric(host) {
        return Err(Refusal::new(
            format!("`{host}` is not an IP address"),
            "write four numbers from 0 to 255 with dots between, as in \"10.0.5.21:443\"",
        ));
    }
    host_name(host).map(|host| ServerAddress::Name { host, port })
}

/// "10.0.0.53", "10.0.0.53:5353" or "[2001:db8::53]:53". Never a name: who would look it up?
pub(in crate::config) fn name_server(text: &str) -> Result<SocketAddr, Refusal> {
    const DNS_PORT: u16 = 53;
    if let Ok(address) = text.parse::<IpAddr>() {
        return unmapped(SocketAddr::new(address, DNS_PORT), text);
    }
    let address = text.parse::<SocketAddr>().map_err(|_| {
        Refusal::new(
            format!("`{text}` is not the address of a name server"),
            "write an IP address, with a port if that is not 53: \"10.0.0.53\" or \"[2001:db8::53]:5353\"",
        )
    })?;
    some_port(address.port(), text)?;
    unmapped(address, text)
}

/// A name cannot end in a label of digits alone (RFC 3696 2): that is a slip in an address.
fn numeric(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

fn with_port(rest: &str, scheme: &str) -> String {
    let host = rest.split('/').next().unwrap_or(rest);
    match (host.contains(':'), scheme) {
        (true, _) => host.to_owned(),
        (false, "http") => format!("{host}:80"),
        (false, _) => format!("{host}:443"),
    }
}

fn without_port(address: IpAddr) -> Refusal {
    let with_port = SocketAddr::new(address, 443);
    Refusal::new(
        format!("`{address}` has no port"),
        format!("write \"{with_port}\", with the port you mean"),
    )
}

fn some_port(port: u16, text: &str) -> Result<(), Refusal> {
    if port == 0 {
        return Err(Refusal::new(
            format!("`{text}` has port 0, and nothing can be reached there"),
            "write the server's port, 1 to 65535",
        ));
    }
    Ok(())
}

/// IPv6 sockets are IPv6 only, so an IPv4 address has one form: its own.
fn unmapped(address: SocketAddr, text: &str) -> Result<SocketAddr, Refusal> {
    let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
    if plain.is_ipv4() && address.is_ipv6() {
        return Err(Refusal::new(
            format!("`{text}` is an IPv4 address in IPv6 clothes"),
            format!("write \"{plain}\""),
        ));
    }
    Ok(address)
}

fn unix_path(path: &str, base: &Path) -> Result<PathBuf, Refusal> {
    let full = base.join(path);
    let bytes = full.as_os_str().len();
    if path.is_empty() || path.contains('\0') {
        return Err(Refusal::new(
            "a unix socket needs a path",
            "write it after `unix:`, as in \"unix:/run/ringway/x.sock\"",
        ));
    }
    if bytes > UNIX_PATH_BYTES_MAX {
        return Err(Refusal::new(
            format!("the socket's path has {bytes} bytes, and Linux takes {UNIX_PATH_BYTES_MAX}"),
            "choose a shorter path, such as one under /run",
        ));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Result<BindAddress, Refusal> {
        bind_address(text, Path::new("/etc/ringway"))
    }

    fn server(text: &str) -> Result<ServerAddress, Refusal> {
        server_address(text, Path::new("/etc/ringway"))
    }

    #[test]
    fn binds_are_addresses_with_ports_or_paths() {
        assert_eq!(
            bind("0.0.0.0:443").unwrap(),
            BindAddress::Tcp("0.0.0.0:443".parse().unwrap())
        );
        assert!(matches!(bind("[::]:0"), Ok(BindAddress::Tcp(_))));
        assert_eq!(
            bind("unix:x.sock").unwrap(),
            BindAddress::Unix(PathBuf::from("/etc/ringway/x.sock"))
        );
        assert_eq!(
            bind("unix:/run/x.sock").unwrap(),
            BindAddress::Unix(PathBuf::from("/run/x.sock"))
        );
    }

    #[test]
    fn a_bare_port_is_refused_with_the_addresses_to_choose_from() {
        for text in ["443", ":443", "*:443"] {
            let refusal = bind(text).unwrap_err();
            assert!(refusal.cure.contains("0.0.0.0:443"), "{text}: {refusal:?}");
            assert!(refusal.cure.contains("[::]:443"), "{text}: {refusal:?}");
        }
    }

    #[test]
    fn other_binds_are_refused() {
        let long = format!("unix:/{}", "x".repeat(120));
        for text in [
            "",
            "localhost:443",
            "10.0.0.1",
            "::1",
            "0.0.0.0:70000",
            "unix:",
            "[::ffff:1.2.3.4]:443",
            &long,
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_addresses_names_or_paths() {
        assert!(matches!(server("10.0.5.21:443"), Ok(ServerAddress::Ip(_))));
        assert!(matches!(
            server("[2001:db8::1]:443"),
            Ok(ServerAddress::Ip(_))
        ));
        assert_eq!(
            server("Backend.example.com:12345").unwrap(),
            ServerAddress::Name {
                host: "backend.example.com".to_owned(),
                port: 12345
            }
        );
        assert!(matches!(
            server("unix:/run/a.sock"),
            Ok(ServerAddress::Unix(_))
        ));
    }

    #[test]
    fn servers_without_a_port_and_urls_are_refused_with_the_cure() {
        assert!(server("backend").unwrap_err().cure.contains("backend:443"));
        assert!(server("::1").unwrap_err().cure.contains("[::1]:443"));
        assert!(
            server("https://a.b/c")
                .unwrap_err()
                .cure
                .contains("\"a.b:443\"")
        );
        for text in [
            "",
            "a:0",
            "a:x",
            "a:+1",
            "a:",
            "10.0.0.1:0",
            "10.0.0.300:1",
            "a b:1",
            "::1:x",
        ] {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
