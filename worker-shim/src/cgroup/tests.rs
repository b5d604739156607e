use super::*;

/// A hierarchy of plain files, in which every group has what the kernel would put there.
#[track_caller]
fn fake(version: Version, controllers: &[Controller], files: &[&str]) -> (tempfile::TempDir, Base) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let base = Base { version, controllers: controllers.to_vec(), dir: dir.path().to_owned() };
    (dir, base)
}

fn limited(base: Base) -> Group {
    let limits = Limits { memory_max: Some(64 << 20), cpu_max: Some(150), processes_max: Some(40) };
    let group = Group { parts: vec![base], limits };
    group.limit_last().unwrap();
    group
}

fn read(dir: &tempfile::TempDir, file: &str) -> String {
    fs::read_to_string(dir.path().join(file)).unwrap()
}

#[test]
fn the_new_version_is_told_limits_in_its_words_and_its_counts_are_read() {
    let files = ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"];
    let (dir, base) = fake(Version::V2, &Controller::ALL, &files);
    let group = limited(base);
    let told = files.map(|file| read(&dir, file));
    assert_eq!(told, ["67108864", "0", "1", "150000 100000", "40"]);
    assert_eq!((group.counted(), group.remark(&group.counted())), (Counted::default(), None));
    fs::write(
        dir.path().join("memory.events"),
        "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n",
    )
    .unwrap();
    fs::write(dir.path().join("pids.events"), "max 2\n").unwrap();
    assert_eq!(group.counted(), Counted { memory_kills: 3, processes_refused: 2 });
}

#[test]
fn the_old_version_is_told_in_its_own_words_and_need_not_count_swap() {
    let files = ["memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us", "pids.max"];
    let (dir, base) = fake(Version::V1, &Controller::ALL, &files);
    let group = limited(base);
    assert_eq!(files.map(|file| read(&dir, file)), ["67108864", "100000", "150000", "40"]);
    fs::write(dir.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        .unwrap();
    let remark = "out of memory: memory_max of 67108864 bytes was reached, and 1 processes were killed";
    assert_eq!(group.remark(&group.counted()).as_deref(), Some(remark));
}

#[test]
fn a_limit_that_cannot_be_written_is_an_error() {
    let (_dir, base) = fake(Version::V2, &[Controller::Cpu], &[]);
    let group = Group { parts: vec![base], limits: Limits { cpu_max: Some(50), ..Limits::default() } };
    assert!(group.limit_last().is_err());
}

#[test]
fn on_the_new_version_the_group_above_is_taken_where_our_own_cannot_limit() {
    // Given: a group with processes, which therefore refuses; here, because its file is missing.
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("service/main");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("cgroup.controllers"), "cpu memory pids").unwrap();
    fs::write(dir.path().join("service/cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
    fs::write(dir.path().join("service/cgroup.subtree_control"), "").unwrap();
    fs::create_dir(dir.path().join("service/ours")).unwrap();
    fs::write(dir.path().join("service/ours/cgroup.subtree_control"), "").unwrap();
    let hierarchy = |top: &str| Hierarchy {
        version: Version::V2,
        controllers: Vec::new(),
        own: own.clone(),
        top: dir.path().join(top),
    };
    let found = base(&hierarchy("service"), "ours").unwrap();
    assert_eq!(found.dir, dir.path().join("service/ours"));
    assert_eq!(found.controllers, Controller::ALL);
    // Expect: nothing above what is mounted.
    assert!(base(&hierarchy("service/main"), "ours").is_err());
}

#[test]
fn a_host_without_a_controller_is_told_which() {
    let none = Cgroups::open_in(&[], "ours").err().unwrap().to_string();
    assert!(none.contains("the controller memory cannot be used: no hierarchy has it"), "{none}");
}
