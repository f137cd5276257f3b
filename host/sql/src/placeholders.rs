//! `:name` in a statement of the operator, written with the placeholders of an engine.
//!
//! What stands in quotes, in comments and after a second colon (a cast of PostgreSQL) is left alone.

/// The statement with the engine's placeholders, and for each of them the place of its parameter in `names`.
///
/// # Errors
/// A name that is not among `names`, or one of them that does not occur.
pub fn place_parameters(engine: &str, sql: &str, names: &[&str]) -> Result<(String, Vec<usize>), String> {
    let numbered = engine == "postgres";
    let escapes = engine == "mysql";
    let mut placed = String::with_capacity(sql.len());
    let mut order: Vec<usize> = Vec::new();
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' | '"' | '`' => quoted_bytes(rest, next, escapes),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            ':' if rest.starts_with("::") => 2,
            ':' if rest[1..].starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let name: &str = &rest[1..1 + name_bytes(&rest[1..])];
                let place = names.iter().position(|known| *known == name);
                let place =
                    place.ok_or_else(|| format!("it has a parameter :{name}, which is not in its parameters"))?;
                let known = order.iter().position(|known| *known == place);
                match (numbered, known) {
                    (true, Some(known)) => placed.push_str(&format!("${}", known + 1)),
                    (true, None) => {
                        order.push(place);
                        placed.push_str(&format!("${}", order.len()));
                    }
                    (false, _) => {
                        order.push(place);
                        placed.push('?');
                    }
                }
                rest = &rest[1 + name.len()..];
                continue;
            }
            other => other.len_utf8(),
        };
        placed.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    match (0..names.len()).find(|place| !order.contains(place)) {
        Some(unused) => Err(format!("its parameter {} does not occur as :{}", names[unused], names[unused])),
        None => Ok((placed, order)),
    }
}

fn name_bytes(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

/// Length of a quoted piece, both quotes included; a doubled quote begins the next piece.
fn quoted_bytes(text: &str, quote: char, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if escapes => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_has_placeholders_of_its_own() {
        let sql = "x = :a AND y = :b OR z = :a";
        let of = |engine| place_parameters(engine, sql, &["b", "a"]).unwrap();
        assert_eq!(of("postgres"), ("x = $1 AND y = $2 OR z = $1".into(), vec![1, 0]));
        assert_eq!(of("sqlite"), ("x = ? AND y = ? OR z = ?".into(), vec![1, 0, 1]));
    }

    #[test]
    fn what_is_no_parameter_is_left_alone() {
        let sql = "':a' \":a\" `:a` it''s :a::text -- :b\n/* :c */ '\\' :a";
        assert_eq!(
            place_parameters("postgres", sql, &["a"]).unwrap().0,
            "':a' \":a\" `:a` it''s $1::text -- :b\n/* :c */ '\\' $1"
        );
        assert!(place_parameters("mysql", "'\\':a' :a", &["a"]).unwrap().0.starts_with("'\\':a' ?"));
    }

    #[test]
    fn names_must_agree() {
        assert!(place_parameters("sqlite", ":c", &[]).unwrap_err().contains(":c"));
        assert!(place_parameters("sqlite", "1", &["a"]).unwrap_err().contains("does not occur"));
    }
}
