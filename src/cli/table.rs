//! Columns for people.

use std::fmt::Write;

/// Rows of cells; every column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with this header. A column whose name begins with `>` stands to the right, as numbers do.
    pub fn new(header: &[&str]) -> Self {
        let names = header.iter().map(|cell| cell.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![names], right: header.iter().map(|cell| cell.starts_with('>')).collect() }
    }

    /// Adds a row, of as many cells as the header has.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.right.len(), "a row has a cell for every column");
        self.rows.push(cells);
    }

    /// The table as text, a line per row, two blanks between columns.
    pub fn render(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let width = widths[column];
                let _ = if self.right[column] {
                    write!(line, "{gap}{cell:>width$}")
                } else {
                    write!(line, "{gap}{cell:<width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names come from the network: what could steer a terminal is escaped.
pub fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new(&["stream", ">frames"]);
        table.row(vec!["cam1".into(), "12".into()]);
        table.row(vec!["camera 2".into(), "-".into()]);
        assert_eq!(table.render(), "stream    frames\ncam1          12\ncamera 2       -\n");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("cam\u{1b}[2J1"), "cam\\u{1b}[2J1");
        assert_eq!(printable("Köln 1"), "Köln 1");
    }
}
