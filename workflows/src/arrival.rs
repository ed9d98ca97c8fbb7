//! Results of the user's commands, noticed when they arrive, whether or not the user's code asks for
//! them then.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use futures_util::future::LocalBoxFuture;

/// All results of a run that are on their way.
#[derive(Default)]
pub(crate) struct Arrivals {
    expected: RefCell<Vec<Rc<dyn Arriving>>>,
}

impl Arrivals {
    /// Calls `arrived` with the result when it is there: because the future that this returns was
    /// polled, or because of [`look`](Self::look), even if that future was dropped.
    pub(crate) fn expect<T: 'static, R, A>(
        &self,
        result: R,
        arrived: A,
    ) -> impl Future<Output = T> + use<T, R, A>
    where
        R: Future<Output = T> + 'static,
        A: FnOnce(T) -> T + 'static,
    {
        let arrival = Rc::new(RefCell::new(Arrival::OnItsWay(OnItsWay {
            result: Box::pin(result),
            arrived: Box::new(arrived),
            waker: None,
        })));
        self.expected.borrow_mut().push(arrival.clone());
        poll_fn(move |cx| {
            if let Arrival::OnItsWay(on_its_way) = &mut *arrival.borrow_mut() {
                on_its_way.waker = Some(cx.waker().clone());
            }
            if !arrival.look(cx) {
                return Poll::Pending;
            }
            match arrival.replace(Arrival::Taken) {
                Arrival::Here(result) => Poll::Ready(result),
                _ => panic!("a result was polled for after it had been taken"),
            }
        })
    }

    /// Looks what has arrived.
    pub(crate) fn look(&self, cx: &mut Context<'_>) {
        let mut expected = Vec::new();
        let mut new = self.expected.take();
        while !new.is_empty() {
            new.retain(|arrival| !arrival.look(cx));
            expected.append(&mut new);
            // What arrived may have more to come, as a child workflow that has started.
            new = self.expected.take();
        }
        self.expected.replace(expected);
    }

    pub(crate) fn forget(&self) {
        self.expected.take();
    }
}

trait Arriving {
    /// Whether it has arrived.
    fn look(&self, cx: &mut Context<'_>) -> bool;
}

enum Arrival<T> {
    OnItsWay(OnItsWay<T>),
    Here(T),
    Taken,
}

struct OnItsWay<T> {
    result: LocalBoxFuture<'static, T>,
    arrived: Box<dyn FnOnce(T) -> T>,
    /// Of the code that waits for it. Whoever looks, it is this one that is to be woken.
    waker: Option<Waker>,
}

impl<T> Arriving for RefCell<Arrival<T>> {
    fn look(&self, cx: &mut Context<'_>) -> bool {
        let result = match &mut *self.borrow_mut() {
            Arrival::OnItsWay(OnItsWay { result, waker, .. }) => match waker {
                Some(waker) => result.as_mut().poll(&mut Context::from_waker(waker)),
                None => result.as_mut().poll(cx),
            },
            Arrival::Here(_) | Arrival::Taken => return true,
        };
        let Poll::Ready(result) = result else { return false };
        if let Arrival::OnItsWay(OnItsWay { arrived, .. }) = self.replace(Arrival::Taken) {
            self.replace(Arrival::Here(arrived(result)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, task::noop_waker_ref};
    use std::cell::Cell;

    /// A result that is there when it is told, and whether it was noticed.
    fn expected(
        arrivals: &Arrivals,
    ) -> (Rc<Cell<bool>>, Rc<Cell<u32>>, impl Future<Output = u32> + use<>) {
        let (is_here, noticed) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (here, notice) = (is_here.clone(), noticed.clone());
        let result = poll_fn(move |_| if here.get() { Poll::Ready(7) } else { Poll::Pending });
        let arrived = move |result| {
            notice.set(notice.get() + 1);
            result
        };
        let future = arrivals.expect(result, arrived);
        (is_here, noticed, future)
    }

    fn look(arrivals: &Arrivals) {
        arrivals.look(&mut Context::from_waker(noop_waker_ref()));
    }

    #[test]
    fn what_nobody_polls_is_noticed_once_and_kept() {
        let arrivals = Arrivals::default();
        let (is_here, noticed, future) = expected(&arrivals);
        look(&arrivals);
        assert_eq!(noticed.get(), 0);
        is_here.set(true);
        look(&arrivals);
        look(&arrivals);
        assert_eq!(noticed.get(), 1);
        assert_eq!(future.now_or_never(), Some(7));
        assert_eq!(noticed.get(), 1);
    }

    #[test]
    fn what_is_polled_is_noticed_once() {
        let arrivals = Arrivals::default();
        let (is_here, noticed, mut future) = expected(&arrivals);
        assert_eq!((&mut future).now_or_never(), None);
        is_here.set(true);
        assert_eq!(future.now_or_never(), Some(7));
        look(&arrivals);
        assert_eq!(noticed.get(), 1);
    }

    #[test]
    fn what_was_dropped_is_noticed_and_then_forgotten() {
        let arrivals = Arrivals::default();
        let (is_here, noticed, future) = expected(&arrivals);
        drop(future);
        is_here.set(true);
        look(&arrivals);
        assert_eq!(noticed.get(), 1);
        assert!(arrivals.expected.borrow().is_empty());
    }

    #[test]
    fn what_an_arrival_expects_is_looked_at_too() {
        let arrivals = Rc::new(Arrivals::default());
        let ends = Rc::new(Cell::new(0));
        let (inner, count) = (arrivals.clone(), ends.clone());
        let start = arrivals.expect(std::future::ready(()), move |()| {
            drop(inner.expect(std::future::ready(()), move |()| count.set(count.get() + 1)));
        });
        drop(start);
        look(&arrivals);
        assert_eq!(ends.get(), 1);
        assert!(arrivals.expected.borrow().is_empty());
    }

    #[test]
    fn the_code_that_waits_is_woken_whoever_looked_last() {
        use std::sync::atomic::{AtomicBool, Ordering};
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let arrivals = Arrivals::default();
        let (sender, receiver) = futures_util_channel();
        let mut future = Box::pin(arrivals.expect(receiver, |result| result));
        let woken = std::sync::Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        look(&arrivals);
        sender();
        assert!(woken.0.load(Ordering::Relaxed));
    }

    /// A future that wakes whom it saw last when it is sent.
    fn futures_util_channel() -> (impl FnOnce(), impl Future<Output = ()> + 'static) {
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let last = waker.clone();
        let send = move || {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        };
        let wait = poll_fn(move |cx| {
            last.replace(Some(cx.waker().clone()));
            Poll::Pending
        });
        (send, wait)
    }
}
