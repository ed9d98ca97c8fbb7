//! What the compiler says where `#[traced]` is used wrongly.

#[test]
fn misuse_is_refused_where_it_is_written_with_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
