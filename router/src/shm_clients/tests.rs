use super::*;

#[test]
fn every_status_fits_the_byte_that_carries_it() {
    for status in Status::ALL {
        assert_eq!(u16::from(status_byte(status)), status as u16);
    }
}

#[test]
fn what_is_granted_stays_within_the_bounds() {
    let options = ShmOptions { memory_max: 1 << 20, ..ShmOptions::default() };
    let check = |slot_count, payload_size_max, expected: Result<(u32, u32), AttachRefused>| {
        let granted = grant(&options, Wanted { slot_count, payload_size_max });
        let granted = granted.map(|geometry| (geometry.slot_count(), geometry.region_size()));
        assert_eq!(granted, expected, "{slot_count} slots of {payload_size_max}");
    };
    check(0, 0, Ok((32, 16 << 10)));
    check(100, 1, Ok((64, 4096)));
    check(u32::MAX, 4096, Ok((128, 4096)));
    check(64, 512 << 10, Ok((1, 512 << 10)));
    check(1, (512 << 10) + 1, Err(AttachRefused::RingTooLarge));
    check(1, u32::MAX, Err(AttachRefused::RingTooLarge));
}

#[test]
fn deadlines_become_budgets_and_past_ones_are_over() {
    let now = Nanos(5_000_000);
    assert_eq!(time_left(now, u64::MAX), (now, 0));
    assert_eq!(time_left(now, 7_000_000), (now, 2_000));
    assert_eq!(time_left(now, 5_000_999), (Nanos(4_999_000), 1), "less than a microsecond is none");
    assert_eq!(time_left(now, 0), (Nanos(4_999_000), 1));
    assert_eq!(time_left(now, u64::MAX - 1), (now, u32::MAX));
}
