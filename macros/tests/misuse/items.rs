use durable_spans_macros::traced;

#[traced]
struct Shop;

#[traced]
impl Shop {
    fn open() {}
}

#[traced]
const fn constant() -> u32 {
    1
}

trait Open {
    #[traced]
    fn open();
}

fn main() {
    // What is refused is still there.
    Shop::open();
    let _ = constant();
}
