use super::*;
use clap::CommandFactory as _;

#[test]
fn the_flags_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn a_wrong_flag_is_said_with_what_to_write() {
    for (flags, hint) in [
        (vec!["--activation-delay", "soon"], "3s"),
        (vec!["--probe-interval", "0s"], "10ms"),
        (vec!["--state-dir", "here"], "absolute"),
        (vec!["--cri-endpoint", "tcp://x"], "unix://"),
        (
            vec!["--metrics-address", "localhost:9798"],
            "127.0.0.1:9798, :9798 or off",
        ),
        (vec!["--unheard-of"], "--unheard-of"),
    ] {
        let error =
            Arguments::try_parse_from(["pod-checkpointer", "supervisor"].into_iter().chain(flags))
                .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(hint), "{error}");
    }
}

fn supervisor(flags: &[String]) -> SupervisorArguments {
    let line = ["pod-checkpointer", "supervisor"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    match Arguments::try_parse_from(line).unwrap().command {
        Command::Supervisor(arguments) => arguments,
        other => panic!("not the supervisor: {other:?}"),
    }
}

/// A value other than the default for every flag of the supervisor; a flag that is missing here
/// fails the test below.
const EVERY_FLAG: [&str; 16] = [
    "--state-dir=/var/lib/state",
    "--run-dir=/run/run",
    "--kubelet-dir=/var/lib/kubelets",
    "--host-root=/host",
    "--manifest-dir=/etc/manifests",
    "--key-file=/etc/new.key,/etc/old.key",
    "--node-name=node-1",
    "--cri-endpoint=unix:///run/cri.sock",
    "--activation-delay=1500ms",
    "--probe-interval=700ms",
    "--probe-timeout=90s",
    "--unstick-kubelet=false",
    "--activate-locked-out=10m",
    "--early-namespaces=network,proxy",
    "--apiserver=https://api.example:6443,https://[fd00::1]:6443",
    "--metrics-address=[::1]:9999",
];

#[test]
fn every_flag_of_the_supervisor_is_written_as_it_is_read() {
    let mut flags: Vec<String> = EVERY_FLAG.map(str::to_owned).to_vec();
    flags.push("--apiserver-ca=/etc/ca.pem".into());
    let arguments = supervisor(&flags);
    let written = arguments.to_flags();
    assert_eq!(supervisor(&written), arguments);
    let command = Arguments::command();
    let supervisor = command.find_subcommand("supervisor").unwrap();
    for name in supervisor
        .get_arguments()
        .filter_map(|flag| flag.get_long())
    {
        let is_named = |flags: &[String]| {
            flags
                .iter()
                .any(|flag| flag.starts_with(&format!("--{name}=")))
        };
        assert!(is_named(&flags), "the test gives no --{name}");
        assert!(is_named(&written), "--{name} is not written");
    }
}

#[test]
fn defaults_and_the_extremes_of_times_are_written_as_they_are_read() {
    let default = supervisor(&[]);
    assert_eq!(supervisor(&default.to_flags()), default);
    for time in ["0", "10ms", "61s", "36h", "1year 1ns"] {
        let arguments = supervisor(&[format!("--activation-delay={time}")]);
        assert_eq!(supervisor(&arguments.to_flags()), arguments, "{time}");
    }
}

#[test]
fn an_agent_passes_on_to_its_supervisor_what_both_have_flags_for() {
    let own = [
        "--host-root",
        "--node-name",
        "--manifest-dir",
        "--metrics-address",
    ];
    let flags: Vec<&str> = EVERY_FLAG
        .into_iter()
        .filter(|flag| !own.iter().any(|name| flag.starts_with(name)))
        .collect();
    let more = [
        "--host-root=/host",
        "--node-name=node-1",
        "--metrics-address=:80",
    ];
    let line = ["pod-checkpointer", "agent"]
        .into_iter()
        .chain(more)
        .chain(flags.iter().copied());
    let Command::Agent(agent) = Arguments::try_parse_from(line).unwrap().command else {
        panic!("not the agent")
    };
    let expected = [
        "--manifest-dir=/etc/manifests",
        "--metrics-address=127.0.0.1:81",
    ];
    let expected: Vec<String> = flags
        .into_iter()
        .chain(expected)
        .map(str::to_owned)
        .collect();
    assert_eq!(
        agent.supervisor("/etc/manifests".into()),
        supervisor(&expected)
    );
}

#[test]
fn an_outage_has_bounds_and_nothing_of_it_goes_without() {
    for (flags, hint) in [
        (vec!["--outage", "9s"], "from 10s to 1h"),
        (vec!["--outage", "61m"], "from 10s to 1h"),
        (vec!["--yes"], "--outage"),
        (vec!["--restart-kubelet", "true"], "--outage"),
    ] {
        let error =
            Arguments::try_parse_from(["pod-checkpointer", "drill"].into_iter().chain(flags))
                .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(hint), "{error}");
    }
}
