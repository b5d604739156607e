//! Columns of text for terminals, and numbers as people read them.

/// Rows with aligned columns: the first to the left, the others to the right. The first row is the head.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            line.push(' ');
            line.push_str(&if column == 0 { format!("{cell}{gap}") } else { format!(" {gap}{cell}") });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A length of time with three digits and the unit that fits: `83.1us`, `1.20s`.
pub fn length(ns: u64) -> String {
    let scaled = |unit: &str, unit_ns: f64| {
        let value = ns as f64 / unit_ns;
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        format!("{value:.digits$}{unit}")
    };
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => scaled("us", 1e3),
        1_000_000..1_000_000_000 => scaled("ms", 1e6),
        _ => scaled("s", 1e9),
    }
}

/// A count with its digits in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(columns(&[row(["name", "n"]), row(["é", "100"])]), "  name    n\n  é     100\n");
    }

    #[test]
    fn lengths_and_counts_are_short() {
        let shown: Vec<_> = [0, 999, 1_000, 83_140, 999_000, 1_200_000_000].into_iter().map(length).collect();
        assert_eq!(shown, ["0ns", "999ns", "1.00us", "83.1us", "999us", "1.20s"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
