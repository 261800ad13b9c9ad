use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "6d0f2a1c-9f1e-4f6e-8f5b-0a1b2c3d4e5f";
const POD_IN_SLICE: &str = "6d0f2a1c_9f1e_4f6e_8f5b_0a1b2c3d4e5f";

fn place(template: &str) -> Placement {
    Placement::of(&template.replace("{id}", ID).replace("{slice}", POD_IN_SLICE).replace("{pod}", POD))
}

#[test]
fn finds_the_container_and_the_pod_of_every_runtime_and_driver() {
    let qos = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice";
    let kind = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice";
    for (path, runtime, in_pod) in [
        ("/system.slice/docker-{id}.scope", Some(Runtime::Docker), false),
        ("/docker/{id}", Some(Runtime::Docker), false),
        ("/system.slice/docker-{id}.scope/init.scope", Some(Runtime::Docker), false),
        ("/my.slice/my-own.slice/docker-{id}.scope", Some(Runtime::Docker), false),
        ("/machine.slice/libpod-{id}.scope", Some(Runtime::Podman), false),
        ("/machine.slice/libpod-{id}.scope/container", Some(Runtime::Podman), false),
        ("/libpod_parent/libpod-{id}", Some(Runtime::Podman), false),
        ("/system.slice/nerdctl-{id}.scope", Some(Runtime::Containerd), false),
        (&format!("{qos}/cri-containerd-{{id}}.scope"), Some(Runtime::Containerd), true),
        (&format!("{qos}/crio-{{id}}.scope"), Some(Runtime::CriO), true),
        (&format!("{qos}/crio-{{id}}.scope/container"), Some(Runtime::CriO), true),
        (&format!("{qos}/docker-{{id}}.scope"), Some(Runtime::Docker), true),
        (&format!("{kind}/cri-containerd-{{id}}.scope"), Some(Runtime::Containerd), true),
        ("/kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope", Some(Runtime::CriO), true),
        ("/kubepods/besteffort/pod{pod}/{id}", None, true),
        ("/kubepods/pod{pod}/{id}", None, true),
        ("/kubelet/kubepods/burstable/pod{pod}/{id}", None, true),
        ("/kubepods/burstable/pod{pod}/crio-{id}", Some(Runtime::CriO), true),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{slice}.slice:cri-containerd:{id}",
            Some(Runtime::Containerd),
            true,
        ),
    ] {
        let placement = place(path);
        assert_eq!(placement.container, Some(Container { id: ID.into(), runtime }), "{path}");
        assert_eq!(placement.pod.as_deref(), in_pod.then_some(POD), "{path}");
    }
}

#[test]
fn finds_pods_beside_its_own_from_inside_a_cgroup_namespace() {
    for path in [
        "/../../../kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope",
        "/../../kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope",
        "/../../../kubepods-pod{slice}.slice/crio-{id}.scope",
        "/../../burstable/pod{pod}/{id}",
        "/../../pod{pod}/{id}",
    ] {
        let placement = place(path);
        assert_eq!(placement.container.as_ref().map(|found| found.id.as_str()), Some(ID), "{path}");
        assert_eq!(placement.pod.as_deref(), Some(POD), "{path}");
        assert_eq!(placement.unit, None, "{path}");
    }
    let sibling = place("/../cri-containerd-{id}.scope");
    assert!(sibling.container.is_some() && sibling.pod.is_none());
    assert_eq!(place("/../nginx.service"), Placement::default());
    assert_eq!(place("/../../../../system.slice/nginx.service"), Placement::default());
}

#[test]
fn knows_the_pods_of_the_kubelets_own_directory_by_their_hash() {
    let hash = "0123456789abcdef0123456789abcdef";
    let path = format!("/kubepods.slice/kubepods-pod{hash}.slice/crio-{ID}.scope");
    assert_eq!(Placement::of(&path).pod.as_deref(), Some(hash));
}

#[test]
fn finds_the_unit_and_its_slice() {
    for (path, unit, slice) in [
        ("/system.slice/nginx.service", "nginx.service", "system.slice"),
        ("/system.slice/nginx.service/worker", "nginx.service", "system.slice"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "system-getty.slice"),
        ("/init.scope", "init.scope", "-.slice"),
        ("/system.slice/_cpu.service", "cpu.service", "system.slice"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", "user-1000.slice"),
        // What a user's own manager runs is that user's, whatever the user calls it.
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
            "user@1000.service",
            "user-1000.slice",
        ),
        ("/machine.slice/machine-a.scope/payload/system.slice/x.service", "machine-a.scope", "machine.slice"),
    ] {
        let placement = place(path);
        assert_eq!(placement.unit.as_deref(), Some(unit), "{path}");
        assert_eq!(placement.slice.as_deref(), Some(slice), "{path}");
        assert_eq!(placement.container, None, "{path}");
    }
    assert!(place("/user.slice/user-1000.slice/session-3.scope").is_login_session());
    assert!(!place("/system.slice/session-3.scope").is_login_session());
    assert!(!place("/system.slice/nginx.service").is_login_session());
}

#[test]
fn believes_no_container_that_a_user_or_a_container_made_up() {
    for path in [
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
        "/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope",
        "/system.slice/delegated.service/docker/{id}",
        "/system.slice/delegated.service/kubepods-pod{slice}.slice:cri-containerd:{id}",
        "/user.slice/containerd.service/kubepods-pod{slice}.slice:cri-containerd:{id}",
        "/anything/docker/{id}",
        "/pod{pod}/{id}",
        "/burstable/pod{pod}/{id}",
        "/kubepods-pod{slice}.slice/crio-{id}.scope",
        "/kubepods.slice/other-pod{slice}.slice/crio-{id}.scope",
        "/../../user.slice/user-1000.slice/user@1000.service/docker-{id}.scope",
    ] {
        let placement = place(path);
        assert_eq!((placement.container, placement.pod), (None, None), "{path}");
    }
    // The outermost container is the one that the machine made.
    let other = ID.replace('0', "f");
    let nested = Placement::of(&format!("/system.slice/docker-{ID}.scope/docker/{other}"));
    assert_eq!(nested.container.map(|container| container.id).as_deref(), Some(ID));
    let nested = Placement::of(&format!("/docker/{ID}/docker/{other}"));
    assert_eq!(nested.container.map(|container| container.id).as_deref(), Some(ID));
}

#[test]
fn makes_nothing_of_hostile_paths() {
    let long = format!("/{}", "a/".repeat(4000));
    for path in [
        "",
        "/",
        "nginx.service",
        "//system.slice/nginx.service",
        "/system.slice//nginx.service",
        "/system.slice/../init.scope",
        "/system.slice/./nginx.service",
        "/..",
        "/../..",
        "/system.slice/nginx.service (deleted)",
        "/system.slice/a b.service",
        "/system.slice/.service",
        "/system.slice/\u{202e}.service",
        "/docker/{id}0",
        "/docker/0123",
        "/system.slice/nonsense",
        "/kubepods/burstable/podnonsense/{id}",
        "/kubepods/burstable/pod{pod}",
        &long,
    ] {
        assert_eq!(place(path), Placement::default(), "{path}");
    }
    for scope in
        ["docker-0123.scope", "libpod-conmon-{id}.scope", "docker-{id}.scope.scope", "DOCKER-{id}.scope"]
    {
        assert_eq!(place(&format!("/system.slice/{scope}")).container, None, "{scope}");
    }
}

#[test]
fn takes_the_line_of_version_2() {
    assert_eq!(unified("1:name=systemd:/x\n0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
    assert_eq!(unified("1:name=systemd:/0::/x\n"), None);
    assert_eq!(unified(""), None);
}
