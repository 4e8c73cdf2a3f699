use super::*;

fn read_flags(line: &str) -> Flags {
    flags(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

/// The settings of a kubelet that was started with this command line on a host with these files.
fn settings_of(files: &[(&str, &str)], line: &str) -> Result<Settings, Error> {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    configure(
        &HostRoot::new(directory.path()),
        read_flags(line),
        Path::new("/work"),
    )
}

const KIND: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

#[test]
fn flags_are_read_in_every_spelling_of_pflag() {
    for line in [
        "kubelet --root-dir=/data",
        "kubelet --root-dir /data",
        "kubelet --root_dir /data",
        "kubelet --v=2 --fail-swap-on --root-dir=/data positional",
        "kubelet --root-dir=/first --root-dir=/data",
        "kubelet -v 2 --root-dir=/data -- --root-dir=/other",
    ] {
        assert_eq!(read_flags(line).root_dir, Some("/data".into()), "{line}");
    }
    for line in [
        "kubelet",
        "kubelet --root-dir",
        "kubelet --root-dir=",
        "kubelet -- --root-dir=/data",
    ] {
        assert_eq!(read_flags(line).root_dir, None, "{line}");
    }
}

#[test]
fn flags_go_over_drop_ins_and_drop_ins_over_the_file() {
    let file = format!("{KIND}staticPodPath: /file\ncontainerRuntimeEndpoint: unix:///file\n");
    let drop_in = |text| format!("{KIND}{text}");
    let files = [
        ("etc/kubelet.yaml", file.as_str()),
        ("etc/conf.d/20.conf", &drop_in("staticPodPath: /twenty\n")),
        (
            "etc/conf.d/10/5.conf",
            &drop_in("staticPodPath: /ten\nimagePullCredentialsVerificationPolicy: AlwaysVerify\n"),
        ),
        ("etc/conf.d/30.yaml", &drop_in("staticPodPath: /ignored\n")),
    ];
    let line = "kubelet --config=/etc/kubelet.yaml --config-dir=/etc/conf.d";
    let settings = settings_of(&files, line).unwrap();
    assert_eq!(settings.static_pod_path, Some("/twenty".into()));
    assert_eq!(settings.runtime_endpoint.as_deref(), Some("unix:///file"));
    assert_eq!(settings.pull_verification.as_deref(), Some("AlwaysVerify"));

    let settings = settings_of(&files, &format!("{line} --pod-manifest-path=/flag")).unwrap();
    assert_eq!(settings.static_pod_path, Some("/flag".into()));
}

#[test]
fn the_runtime_of_a_kubelet_that_does_not_name_one_is_its_default_and_within_k3s_unknown() {
    let endpoint = |line: &str| settings_of(&[], line).unwrap().runtime_endpoint;
    assert_eq!(
        endpoint("/usr/bin/kubelet").as_deref(),
        Some("unix:///run/containerd/containerd.sock")
    );
    assert_eq!(
        endpoint("kubelet --container-runtime-endpoint=unix:///run/crio/crio.sock").as_deref(),
        Some("unix:///run/crio/crio.sock")
    );
    assert_eq!(endpoint("/usr/local/bin/k3s server"), None);
}

#[test]
fn a_node_takes_as_many_pods_as_the_lower_limit_says() {
    let most = |line: &str, text: &str| {
        let file = format!("{KIND}{text}\n");
        let line = format!("kubelet --config=/etc/kubelet.yaml {line}");
        settings_of(&[("etc/kubelet.yaml", file.as_str())], &line)
            .unwrap()
            .most_pods(4)
    };
    assert_eq!(most("", ""), 110);
    assert_eq!(most("", "maxPods: 250"), 250);
    assert_eq!(most("--max-pods=30", "maxPods: 250"), 30);
    assert_eq!(most("", "podsPerCore: 10"), 40);
    assert_eq!(most("--pods-per-core 10", "maxPods: 20"), 20);
    assert_eq!(most("", "podsPerCore: 0"), 110);
}

#[test]
fn a_drop_in_can_take_a_setting_away() {
    let file =
        format!("{KIND}staticPodPath: /file\npreloadedImagesVerificationAllowlist: [a, b]\n");
    let drop_in = format!("{KIND}staticPodPath: null\npreloadedImagesVerificationAllowlist: [c]\n");
    let files = [
        ("etc/kubelet.yaml", file.as_str()),
        ("etc/d/1.conf", &drop_in),
    ];
    let settings = settings_of(
        &files,
        "kubelet --config=/etc/kubelet.yaml --config-dir=/etc/d",
    )
    .unwrap();
    assert_eq!(settings.static_pod_path, None);
    assert_eq!(settings.pull_allowlist, ["c"]);
}

#[test]
fn relative_paths_begin_where_the_kubelet_has_them_begin() {
    let file = format!("{KIND}staticPodPath: manifests\n");
    let files = [("work/etc/kubelet.yaml", file.as_str())];
    let settings = settings_of(
        &files,
        "kubelet --config=etc/kubelet.yaml --kubeconfig=kc --root-dir=/abs",
    )
    .unwrap();
    assert_eq!(settings.static_pod_path, Some("/work/etc/manifests".into()));
    assert_eq!(settings.kubeconfig, Some("/work/kc".into()));
    assert_eq!(settings.root_dir, Some("/abs".into()));
}

#[test]
fn a_kubelet_within_another_program_tells_little_and_that_is_no_error() {
    assert_eq!(
        settings_of(&[], "/usr/local/bin/k3s server").unwrap(),
        Settings::default()
    );
    let files = [(
        "etc/rancher/k3s/config.yaml",
        "write-kubeconfig-mode: \"0644\"\n",
    )];
    let line = "/usr/local/bin/k3s server --config /etc/rancher/k3s/config.yaml";
    assert_eq!(settings_of(&files, line).unwrap(), Settings::default());
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error_with_its_path() {
    for files in [&[][..], &[("etc/kubelet.yaml", "kind: [")][..]] {
        let error = settings_of(files, "kubelet --config=/etc/kubelet.yaml").unwrap_err();
        assert!(
            matches!(&error, Error::Configuration(path, _) if path == Path::new("/etc/kubelet.yaml")),
            "{error}"
        );
    }
    assert!(matches!(
        settings_of(&[], "kubelet --config-dir=/none"),
        Err(Error::Configuration(..))
    ));
}

#[test]
fn without_its_feature_gate_no_image_is_verified() {
    let file = format!("{KIND}featureGates: {{{ENSURE_SECRET_PULLED}: false}}\n");
    let files = [("etc/kubelet.yaml", file.as_str())];
    let settings = settings_of(&files, "kubelet --config=/etc/kubelet.yaml").unwrap();
    assert_eq!(settings.pull_verification.as_deref(), Some("NeverVerify"));
    let line = format!(
        "kubelet --config=/etc/kubelet.yaml --feature-gates=A=true,{ENSURE_SECRET_PULLED}=true"
    );
    assert_eq!(settings_of(&files, &line).unwrap().pull_verification, None);
}

fn server_of(kubeconfig: &str) -> Result<Server, Error> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("etc/kubernetes/pki")).unwrap();
    std::fs::write(directory.path().join("etc/kubernetes/pki/ca.crt"), "THE CA").unwrap();
    std::fs::write(
        directory.path().join("etc/kubernetes/kubelet.conf"),
        kubeconfig,
    )
    .unwrap();
    server(
        &HostRoot::new(directory.path()),
        Path::new("/etc/kubernetes/kubelet.conf"),
    )
}

#[test]
fn the_server_is_that_of_the_current_context() {
    let text = "current-context: mine
contexts:
- {name: other, context: {cluster: far, user: u}}
- {name: mine, context: {cluster: near, user: u}}
clusters:
- {name: far, cluster: {server: 'https://far:6443'}}
- name: near
  cluster:
    server: https://near:6443
    certificate-authority: pki/ca.crt
    tls-server-name: api.example
    proxy-url: http://proxy:3128
users: [{name: u, user: {client-certificate: /x}}]
";
    let expected = Server {
        url: "https://near:6443".into(),
        ca: "THE CA".into(),
        tls_name: Some("api.example".into()),
        proxy: Some("http://proxy:3128".into()),
    };
    assert_eq!(server_of(text).unwrap(), expected);
    let absolute = text.replace("pki/ca.crt", "/etc/kubernetes/pki/ca.crt");
    assert_eq!(server_of(&absolute).unwrap(), expected);
    let in_place = text.replace(
        "    tls-",
        "    certificate-authority-data: SU4gUExBQ0U=\n    tls-",
    );
    assert_eq!(server_of(&in_place).unwrap().ca, "IN PLACE");
}

#[test]
fn a_kubeconfig_that_leads_to_no_server_says_so() {
    for text in [
        "{}",
        "current-context: mine",
        "{current-context: mine, contexts: [{name: mine, context: {cluster: c}}]}",
        "{current-context: m, contexts: [{name: m, context: {cluster: c}}], clusters: [{name: c, cluster: {}}]}",
    ] {
        assert!(matches!(server_of(text), Err(Error::NoServer(_))), "{text}");
    }
    assert!(matches!(server_of("["), Err(Error::Configuration(..))));
}
