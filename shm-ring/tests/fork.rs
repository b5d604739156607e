//! Copies of a process. A program of its own, without the test harness, which would have a thread more than a process that can be
//! copied.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, WaitOptions, getpid, getppid, set_child_subreaper, wait};
use shm_ring::fork::{ForkRefused, Side, fork_orphan, thread_count};

fn main() {
    set_child_subreaper(Some(getpid())).unwrap();
    a_copy_has_what_the_original_had_and_is_the_child_of_the_subreaper();
    a_process_whose_thread_has_ended_can_be_copied_again();
    println!("test result: ok. 2 passed");
}

fn a_copy_has_what_the_original_had_and_is_the_child_of_the_subreaper() {
    let mut built = Box::new([1_u8; 100]);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let original = getpid();
    match fork_orphan().unwrap() {
        Side::Copy => {
            let is_adopted = getppid() == Some(original);
            let is_another = getpid() != original;
            built[0] += 6;
            theirs.write_all(&[u8::from(is_adopted), u8::from(is_another), built[0], built[99]]).unwrap();
            std::process::exit(i32::from(built[0]));
        }
        Side::Original => {
            drop(theirs);
            let mut said = Vec::new();
            ours.read_to_end(&mut said).unwrap();
            assert_eq!(said, [1, 1, 7, 1]);
            assert_eq!(built[0], 1, "what the copy changes is its own");
            let (_, status) = next_end();
            assert_eq!(
                status,
                Some(7),
                "and its end is the subreaper's to know; the process between left none"
            );
        }
    }
}

fn a_process_whose_thread_has_ended_can_be_copied_again() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert!(matches!(fork_orphan(), Err(ForkRefused::Threads { count: 2 })));
    drop(release);
    let _ = thread.join();
    // A thread that was joined is still in the kernel's list for the moment it takes to leave it.
    while thread_count().unwrap() > 1 {
        std::thread::yield_now();
    }
    if fork_orphan().unwrap() == Side::Copy {
        std::process::exit(0);
    }
    assert_eq!(next_end().1, Some(0));
}

fn next_end() -> (Pid, Option<i32>) {
    let (pid, status) = wait(WaitOptions::empty()).unwrap().unwrap();
    (pid, status.exit_status())
}
