use super::*;

fn indices(list: &List, links: &Links) -> Vec<u32> {
    list.invariants(links);
    list.iter(links).collect()
}

#[test]
fn first_pushed_is_first_popped() {
    let mut links = Links::with_capacity(3);
    let mut list = List::default();
    for index in [2, 0, 1] {
        list.push_back(&mut links, index);
    }
    assert_eq!(list.back(), Some(1));
    assert_eq!(indices(&list, &links), [2, 0, 1]);
    assert_eq!(std::iter::from_fn(|| list.pop_front(&mut links)).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(list, List::EMPTY);
}

#[test]
fn removal_at_the_head_the_middle_and_the_tail_keeps_the_others_in_order() {
    for (removed, left) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        let mut links = Links::with_capacity(3);
        let mut list = List::default();
        for index in 0..3 {
            list.push_back(&mut links, index);
        }
        list.remove(&mut links, removed);
        assert!(!links.is_linked(removed));
        assert_eq!(indices(&list, &links), left);
    }
}

#[test]
fn two_lists_share_an_arena_without_touching_each_other() {
    let mut links = Links::with_capacity(4);
    let (mut even, mut odd) = (List::default(), List::default());
    for index in [0, 2] {
        even.push_back(&mut links, index);
        odd.push_back(&mut links, index + 1);
    }
    even.pop_front(&mut links);
    assert_eq!(indices(&even, &links), [2]);
    assert_eq!(indices(&odd, &links), [1, 3]);
}

#[test]
fn growing_keeps_lists_and_never_shrinks() {
    let mut links = Links::with_capacity(1);
    let mut list = List::default();
    list.push_back(&mut links, 0);
    links.grow_to(8);
    links.grow_to(2);
    assert_eq!(links.capacity(), 8);
    list.push_back(&mut links, 7);
    assert_eq!(indices(&list, &links), [0, 7]);
}

#[test]
#[should_panic(expected = "already in a list")]
fn an_index_pushed_twice_is_our_bug() {
    let mut links = Links::with_capacity(2);
    List::default().push_back(&mut links, 1);
    List::default().push_back(&mut links, 1);
}

#[test]
#[should_panic(expected = "in no list")]
fn removing_what_is_in_no_list_is_our_bug() {
    List::default().remove(&mut Links::with_capacity(2), 1);
}

#[test]
#[should_panic(expected = "head of another list")]
fn removing_the_head_of_another_list_is_our_bug() {
    let mut links = Links::with_capacity(2);
    List::default().push_back(&mut links, 1);
    List::default().remove(&mut links, 1);
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn an_index_beyond_the_arena_is_our_bug() {
    List::default().push_back(&mut Links::with_capacity(2), 2);
}
