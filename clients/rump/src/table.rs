//! Rows for people and for programs.

use serde_json::{Map, Value, json};

/// Columns by heading; the heading in small letters is the key in JSON.
pub(crate) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One cell.
pub(crate) enum Cell {
    Text(String),
    /// Several: with commas between for people.
    List(Vec<String>),
    /// Bytes: a rounded size for people, the number for programs.
    Bytes(u64),
    Percent(u64),
    Number(u64),
}

impl Table {
    pub(crate) fn new(headings: &'static [&'static str]) -> Table {
        Table {
            headings,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The rows: aligned columns under headings, or one JSON array of objects.
    pub(crate) fn render(&self, json: bool) -> String {
        if json {
            let rows: Vec<Value> = self.rows.iter().map(|row| self.object(row)).collect();
            return format!("{}\n", Value::Array(rows));
        }
        let mut lines: Vec<Vec<String>> =
            vec![self.headings.iter().map(|&h| h.to_owned()).collect()];
        lines.extend(
            self.rows
                .iter()
                .map(|row| row.iter().map(Cell::shown).collect()),
        );
        let width = |column: usize| {
            lines
                .iter()
                .map(|l| l[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut out = String::new();
        for line in &lines {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(i, (cell, &width))| {
                    if self.is_number(i) {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                })
                .collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    fn is_number(&self, column: usize) -> bool {
        self.rows
            .first()
            .is_some_and(|row| !matches!(row[column], Cell::Text(_) | Cell::List(_)))
    }

    fn object(&self, row: &[Cell]) -> Value {
        let pairs = self.headings.iter().zip(row);
        let map: Map<String, Value> = pairs
            .map(|(heading, cell)| (heading.to_lowercase().replace(' ', "_"), cell.json()))
            .collect();
        Value::Object(map)
    }
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::List(texts) if texts.is_empty() => "-".into(),
            Cell::List(texts) => texts.join(", "),
            Cell::Bytes(n) => size(*n),
            Cell::Percent(n) => format!("{n}%"),
            Cell::Number(n) => n.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::List(texts) => json!(texts),
            Cell::Bytes(n) | Cell::Percent(n) | Cell::Number(n) => json!(n),
        }
    }
}

/// A size as df -h shows it.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 10.0 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["Mounted on", "Size"]);
        table.row(vec![Cell::text("/"), Cell::Bytes(512)]);
        table.row(vec![Cell::text("/data"), Cell::Bytes(5 << 29)]);
        table
    }

    #[test]
    fn people_get_aligned_columns() {
        assert_eq!(
            table().render(false),
            "Mounted on  Size\n/            512\n/data       2.5G\n"
        );
    }

    #[test]
    fn programs_get_objects_with_plain_numbers() {
        let want = r#"[{"mounted_on":"/","size":512},{"mounted_on":"/data","size":2684354560}]"#;
        let got: Value = serde_json::from_str(&table().render(true)).unwrap();
        assert_eq!(got, serde_json::from_str::<Value>(want).unwrap());
    }
}
