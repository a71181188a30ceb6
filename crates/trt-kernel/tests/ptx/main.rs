//! What can be said of emitted kernels without a GPU: they assemble, for every target, and what
//! they take of a processor is known.

mod assemble;
mod corpus;
mod fusible;
mod hostile;
mod resources;
mod texts;
#[path = "../reference/units.rs"]
mod units;

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ptx");
    let path = folder.join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let different = kept.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        kept == text,
        "{name} differs (UPDATE_GOLDEN=1 writes it): {different:?}, {} lines against {}",
        kept.lines().count(),
        text.lines().count()
    );
}
