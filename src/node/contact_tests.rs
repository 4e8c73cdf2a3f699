use super::*;

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Each outcome with when its probe began and ended; then class, since, failures and whether by time-out.
fn after(outcomes: &[(u64, u64, Outcome)]) -> Option<(Class, u64, u32, bool)> {
    let mut tracker = Tracker::default();
    for (began, ended, outcome) in outcomes {
        tracker.observe(at(*began), at(*ended), *outcome);
    }
    tracker.current().map(|contact| {
        let since = contact.since.as_millis().try_into().unwrap();
        (contact.class, since, contact.failures, contact.by_time_out)
    })
}

#[test]
fn class_and_since_follow_from_the_outcomes() {
    use Class::{Answering, Failing, Silent};
    use Outcome::{Refused, Status, TimedOut, Unproven};

    for (name, outcomes, expected) in [
        ("the first answer", &[(10, 11, Status(200))][..], (Answering, 11, 0, false)),
        ("a refused credential is an answer", &[(10, 11, Status(401))], (Answering, 11, 0, false)),
        ("answers go on", &[(10, 11, Status(200)), (20, 21, Status(403))], (Answering, 11, 0, false)),
        ("the first silence", &[(10, 20, TimedOut)], (Silent, 10, 1, true)),
        (
            "a server that dies slowly",
            &[(0, 1, Status(200)), (10, 11, Status(500)), (20, 21, Refused), (30, 40, TimedOut)],
            (Silent, 10, 3, true),
        ),
        (
            "and one that begins to come back",
            &[(10, 20, TimedOut), (30, 31, Refused), (40, 41, Status(503))],
            (Failing, 10, 3, false),
        ),
        (
            "an answer ends the row",
            &[(10, 11, Refused), (20, 21, Status(200)), (30, 31, Refused)],
            (Silent, 30, 1, false),
        ),
        (
            "one refused probe after a minute of unproven ones is one refused probe",
            &[(0, 1, Unproven), (30_000, 30_001, Unproven), (59_000, 59_001, Unproven), (60_000, 60_001, Refused)],
            (Silent, 60_000, 1, false),
        ),
        (
            "unproven counts everything since the last answer",
            &[(10, 11, Refused), (20, 21, Unproven), (30, 31, Refused), (40, 41, Unproven)],
            (Class::Unproven, 10, 4, false),
        ),
        (
            "an unproven probe interrupts the silence",
            &[(10, 11, Refused), (20, 21, Unproven), (30, 31, Status(500)), (40, 41, Refused)],
            (Silent, 30, 2, false),
        ),
        (
            "a probe that began before the answer came and failed later says nothing",
            &[(10, 11, Refused), (20, 120, Status(200)), (50, 150, TimedOut), (60, 140, Status(500))],
            (Answering, 120, 0, false),
        ),
        (
            "nor does one that heard nothing while another heard a 5xx",
            &[(10, 110, TimedOut), (20, 60, Status(500)), (30, 130, TimedOut)],
            (Failing, 10, 2, false),
        ),
        (
            "an answer counts when it comes, not when it was asked for",
            &[(10, 100, Status(200)), (0, 120, Status(200)), (110, 130, Refused)],
            (Answering, 100, 0, false),
        ),
        (
            "of overlapping probes the first to begin counts",
            &[(20, 21, Refused), (10, 110, TimedOut)],
            (Silent, 10, 2, true),
        ),
    ] {
        assert_eq!(after(outcomes), Some(expected), "{name}");
    }
    assert_eq!(after(&[]), None);
}

fn server(url: &str) -> Server {
    let ca = rcgen::generate_simple_self_signed(vec!["api.example".to_owned()]).unwrap().cert.pem();
    Server { url: url.to_owned(), ca, tls_name: None, proxy: None }
}

fn new(server: Server) -> Result<Prober, Error> {
    Prober::new(server, HostRoot::new("/"), Duration::from_secs(1))
}

#[test]
fn an_address_is_known_without_a_look_up() {
    for (url, addresses) in [
        ("https://10.0.0.1:6443", vec!["10.0.0.1:6443"]),
        ("https://[fd00::1]/prefix", vec!["[fd00::1]:443"]),
        ("https://api.example:6443", vec![]),
    ] {
        let known = new(server(url)).unwrap().addresses();
        assert_eq!(known.iter().map(ToString::to_string).collect::<Vec<_>>(), addresses, "{url}");
    }
}

#[test]
fn behind_a_proxy_the_address_is_the_proxys() {
    let proxy = Some("http://user:pass@10.0.0.9:3128".to_owned());
    let known = new(Server { proxy, ..server("https://api.example:6443") }).unwrap().addresses();
    assert_eq!(known, ["10.0.0.9:3128".parse().unwrap()]);
}

#[test]
fn what_cannot_be_proven_is_not_probed() {
    assert!(matches!(new(server("http://10.0.0.1:8080")), Err(Error::Address(_))));
    assert!(matches!(new(server("nonsense")), Err(Error::Address(_))));
    assert!(matches!(new(Server { ca: String::new(), ..server("https://10.0.0.1") }), Err(Error::Ca(_))));
    let proxy = Some("socks5://10.0.0.9".to_owned());
    assert!(matches!(new(Server { proxy, ..server("https://10.0.0.1") }), Err(Error::Proxy(_))));
}
