//! Lists of processors as the kernel and our options write them: `2,4-6`.
//!
//! In: text of an option or of a file below `/sys`.  Out: numbers in the order written, and back.
#![forbid(unsafe_code)]

/// The largest number in a list: more than the kernel's own masks hold on the machines we know, and little enough that a
/// range costs no memory to speak of.
const INDEX_MAX: u32 = 4095;

/// Reads a list; `None` if it is none, names a processor twice, or one beyond `INDEX_MAX`.
pub fn parse(text: &str) -> Option<Vec<u32>> {
    let number = |digits: &str| digits.trim().parse::<u32>().ok().filter(|index| *index <= INDEX_MAX);
    let mut list: Vec<u32> = Vec::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || list.iter().any(|index| (first..=last).contains(index)) {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// Writes a list, neighbours as a range. The order stays as it is.
pub fn format(list: &[u32]) -> String {
    let runs = list.chunk_by(|one, next| one + 1 == *next);
    let texts: Vec<_> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(u32::to_string).collect(),
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_back_in_their_order() {
        let check = |text: &str, list: &[u32], written: &str| {
            assert_eq!(parse(text).as_deref(), Some(list), "{text}");
            assert_eq!(format(list), written);
        };
        check("0", &[0], "0");
        check("2, 4-6", &[2, 4, 5, 6], "2,4-6");
        check("4,2,0-1\n", &[4, 2, 0, 1], "4,2,0-1");
        check("0,1,2,3", &[0, 1, 2, 3], "0-3");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "-1", "1-", "2-1", "a", "1,1", "1,0-2", "4096", "0-4294967295", "1;2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
