//! Security contexts: what of a pod's and of a container's a twin keeps. Every field is named, so
//! that a new one does not compile until it is decided.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext, Sysctl, WindowsSecurityContextOptions,
};

use super::keep;

pub(super) fn of_pod(context: &PodSecurityContext) -> PodSecurityContext {
    let PodSecurityContext {
        app_armor_profile,
        fs_group,
        fs_group_change_policy,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_change_policy,
        se_linux_options,
        seccomp_profile,
        supplemental_groups,
        supplemental_groups_policy,
        sysctls,
        windows_options,
    } = context;
    PodSecurityContext {
        app_armor_profile: app_armor_profile.as_ref().map(app_armor),
        fs_group: *fs_group,
        fs_group_change_policy: fs_group_change_policy.clone(),
        run_as_group: *run_as_group,
        run_as_non_root: *run_as_non_root,
        run_as_user: *run_as_user,
        // the other value affects only volumes that a twin cannot have, and a kubelet without the
        // feature gate SELinuxMount refuses it
        se_linux_change_policy: se_linux_change_policy
            .clone()
            .filter(|policy| policy == "Recursive"),
        se_linux_options: se_linux_options.as_ref().map(se_linux),
        seccomp_profile: seccomp_profile.as_ref().map(seccomp),
        supplemental_groups: supplemental_groups.clone(),
        supplemental_groups_policy: supplemental_groups_policy.clone(),
        sysctls: sysctls.as_ref().map(|list| {
            list.iter()
                .map(|it| keep!(it, Sysctl { name, value }))
                .collect()
        }),
        windows_options: windows_options.as_ref().map(windows),
    }
}

pub(super) fn of_container(context: &SecurityContext) -> SecurityContext {
    let SecurityContext {
        allow_privilege_escalation,
        app_armor_profile,
        capabilities,
        privileged,
        proc_mount,
        read_only_root_filesystem,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_options,
        seccomp_profile,
        windows_options,
    } = context;
    SecurityContext {
        allow_privilege_escalation: *allow_privilege_escalation,
        app_armor_profile: app_armor_profile.as_ref().map(app_armor),
        capabilities: capabilities
            .as_ref()
            .map(|it| keep!(it, Capabilities { add, drop })),
        privileged: *privileged,
        proc_mount: proc_mount.clone(),
        read_only_root_filesystem: *read_only_root_filesystem,
        run_as_group: *run_as_group,
        run_as_non_root: *run_as_non_root,
        run_as_user: *run_as_user,
        se_linux_options: se_linux_options.as_ref().map(se_linux),
        seccomp_profile: seccomp_profile.as_ref().map(seccomp),
        windows_options: windows_options.as_ref().map(windows),
    }
}

fn app_armor(profile: &AppArmorProfile) -> AppArmorProfile {
    keep!(
        profile,
        AppArmorProfile {
            localhost_profile,
            type_
        }
    )
}

fn seccomp(profile: &SeccompProfile) -> SeccompProfile {
    keep!(
        profile,
        SeccompProfile {
            localhost_profile,
            type_
        }
    )
}

fn se_linux(options: &SELinuxOptions) -> SELinuxOptions {
    keep!(
        options,
        SELinuxOptions {
            level,
            role,
            type_,
            user
        }
    )
}

fn windows(options: &WindowsSecurityContextOptions) -> WindowsSecurityContextOptions {
    keep!(
        options,
        WindowsSecurityContextOptions {
            gmsa_credential_spec,
            gmsa_credential_spec_name,
            host_process,
            run_as_user_name
        }
    )
}
