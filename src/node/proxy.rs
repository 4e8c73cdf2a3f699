//! The proxy that a Go program takes from its environment: `HTTPS_PROXY` and `NO_PROXY`, by the
//! rules of golang.org/x/net/http/httpproxy. Pure.

use std::fmt;
use std::net::IpAddr;

/// What the environment of a process says of proxies. Its debug form shows no credential.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTPS_PROXY`, or `https_proxy`.
    https: Option<String>,
    /// `NO_PROXY`, or `no_proxy`.
    except: String,
}

impl Proxies {
    /// From the content of `/proc/<pid>/environ`: `NAME=value`, each ended by a NUL.
    pub fn of_environment(environment: &[u8]) -> Self {
        let variable = |name: &str| {
            environment
                .split(|byte| *byte == 0)
                .filter_map(|variable| std::str::from_utf8(variable).ok())
                .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        Self {
            https: variable("HTTPS_PROXY").or_else(|| variable("https_proxy")),
            except: variable("NO_PROXY")
                .or_else(|| variable("no_proxy"))
                .unwrap_or_default(),
        }
    }

    /// The URL of the proxy through which the process reaches an HTTPS server with this name or
    /// address (without brackets) at this port; `None`: it connects to the server itself.
    pub fn of(&self, host: &str, port: u16) -> Option<String> {
        let proxy = self.https.as_deref()?;
        if self.is_direct(&host.to_lowercase(), port) {
            return None;
        }
        Some(if proxy.contains("://") {
            proxy.to_owned()
        } else {
            format!("http://{proxy}")
        })
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok();
        host == "localhost"
            || address.is_some_and(|address| address.to_canonical().is_loopback())
            || self
                .except
                .split(',')
                .any(|entry| matches(&entry.trim().to_lowercase(), host, address, port))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Proxies")
            .field("https", &self.https.as_deref().map(without_credentials))
            .field("except", &self.except)
            .finish()
    }
}

/// The URL of a proxy without user and password.
pub fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // a password may have any character, even a slash
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() {
        host.to_owned()
    } else {
        format!("{scheme}://{host}")
    }
}

/// Whether this entry of `NO_PROXY` means this host.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = network_of(entry) {
        return address.is_some_and(|address| is_in(address, network, length));
    }
    let (name, only) = split_port(entry);
    if only.is_some_and(|only| only != port.to_string()) {
        return false;
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(excepted) = bare.parse::<IpAddr>() {
        return address.is_some_and(|address| address.to_canonical() == excepted.to_canonical());
    }
    let name = name
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(name);
    match name.strip_prefix('.') {
        _ if name.is_empty() => false,
        // with a leading dot the domain itself is not meant
        Some(_) => host.ends_with(name),
        None => {
            host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
        }
    }
}

/// An entry without its port. An IPv6 address has one only behind brackets.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry, None),
    }
}

fn network_of(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length = length.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((address, length))
}

fn is_in(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = u32::from(address) ^ u32::from(network);
            differing.checked_shr(32 - length).unwrap_or_default() == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = u128::from(address) ^ u128::from(network);
            differing.checked_shr(128 - length).unwrap_or_default() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[&str]) -> Proxies {
        Proxies::of_environment(format!("PATH=/bin\0{}\0", variables.join("\0")).as_bytes())
    }

    #[test]
    fn the_first_filled_variable_counts_and_a_bare_host_is_a_proxy_of_plain_http() {
        let of = |variables: &[&str]| proxies(variables).of("api.example", 6443);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["HTTP_PROXY=http://one:1"]), None);
        assert_eq!(
            of(&["https_proxy=http://two:2", "HTTPS_PROXY=http://one:1"]).as_deref(),
            Some("http://one:1")
        );
        assert_eq!(
            of(&["HTTPS_PROXY=", "https_proxy=two:2"]).as_deref(),
            Some("http://two:2")
        );
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (entry, host, is_direct) in [
            ("", "api.example", false),
            ("*", "api.example", true),
            ("example", "api.example", true),
            ("example", "example", true),
            (".example", "api.example", true),
            (".example", "example", false),
            ("*.example", "api.example", true),
            ("*.example", "example", false),
            ("ample", "example", false),
            ("other, API.Example ", "api.EXAMPLE", true),
            ("api.example:6443", "api.example", true),
            ("api.example:443", "api.example", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/33", "10.1.2.3", false),
            ("10.0.0.0/8", "api.example", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:6443", "10.1.2.3", true),
            ("10.1.2.3:443", "10.1.2.3", false),
            ("fd00::/8", "fd00::1", true),
            ("fd00::1", "fd00::1", true),
            ("[fd00::1]:6443", "fd00::1", true),
            ("[fd00::1]:443", "fd00::1", false),
            ("", "localhost", true),
            ("", "127.0.0.2", true),
            ("", "::1", true),
        ] {
            let proxies = proxies(&["HTTPS_PROXY=http://p:1", &format!("NO_PROXY={entry}")]);
            assert_eq!(
                proxies.of(host, 6443).is_none(),
                is_direct,
                "NO_PROXY={entry} {host}"
            );
        }
    }

    #[test]
    fn no_credential_is_shown() {
        let proxies = proxies(&["HTTPS_PROXY=http://user:p@ss/word@proxy:3128"]);
        let shown = format!("{proxies:?}");
        assert!(shown.contains("http://proxy:3128"), "{shown}");
        assert!(
            !shown.contains("ss/word") && !shown.contains("user"),
            "{shown}"
        );
        assert_eq!(without_credentials("user:pass@proxy:1"), "proxy:1");
    }
}
