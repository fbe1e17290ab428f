//! Tests.
#[test]
fn probe() {
    for (i, o) in [
        ("/tmp/pgcat/err.txt", "/tmp/pgcat/ours.txt"),
        ("/tmp/pgcat/tg.txt", "/tmp/pgcat/ourstg.txt"), ("/tmp/pgcat/ok.txt", "/tmp/pgcat/oursok.txt"),
    ] {
        let text = std::fs::read_to_string(i).unwrap();
        let mut out = String::new();
        for line in text.lines() {
            match crate::parse(line) {
                Ok(s) => out += &format!("{line} | OK | {} | 0 |\n", s.len()),
                Err(e) => {
                    out += &format!(
                        "{line} | {} | {} | {} | {}\n",
                        e.sqlstate,
                        e.message,
                        e.position,
                        e.hint.unwrap_or_default()
                    )
                }
            }
        }
        std::fs::write(o, out).unwrap();
    }
}
