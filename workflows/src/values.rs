use std::{
    any::{Any, TypeId},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use durable_spans_model::to_json;
use serde::Serialize;
use serde_json::{Map, Value};
use temporalio_workflow::workflow_interceptors::{
    ExecuteWorkflowInput, HandleSignalInput, HandleUpdateInput, InitializeWorkflowInput,
    ScheduleActivityInput, ScheduleLocalActivityInput, WorkflowOutputValue,
};

/// The types of values that are captured as inputs and outputs, and those that are not.
///
/// The SDK hands the input of an activity or message to interceptors as a value of
/// some type, so what shall be captured of these must be known by its type: the usual ones
/// are, and [`show`](Self::show) adds one of your own. What a run is started with, and what runs and
/// activities return, is captured whatever its type, but for those that are [hidden](Self::hide).
///
/// ```
/// use durable_spans_workflow::ValueTypes;
///
/// #[derive(serde::Serialize)]
/// struct Order { item: String }
/// struct Card;
///
/// let types = ValueTypes::new().show::<Order>().hide::<Card>();
/// let order = Order { item: "book".into() };
/// assert_eq!(types.shown(&order).unwrap()["item"], "book");
/// ```
#[derive(Clone)]
pub struct ValueTypes {
    shown: Vec<Arc<dyn ValueType>>,
    hidden: Vec<Arc<dyn ValueType>>,
}

impl ValueTypes {
    /// Texts, numbers, booleans, JSON values, and lists of texts and JSON values are shown.
    pub fn new() -> Self {
        let none = Self { shown: Vec::new(), hidden: Vec::new() };
        none.show::<String>()
            .show::<Value>()
            .show::<Map<String, Value>>()
            .show::<Vec<String>>()
            .show::<Vec<Value>>()
            .show::<bool>()
            .show::<i32>()
            .show::<i64>()
            .show::<u32>()
            .show::<u64>()
            .show::<usize>()
            .show::<f64>()
    }

    /// Captures values of this type, too.
    #[must_use]
    pub fn show<T: Serialize + Any>(mut self) -> Self {
        self.shown.push(Arc::new(Shown::<T>(PhantomData)));
        self
    }

    /// Captures no values of this type, wherever they go in or come out as a whole.
    #[must_use]
    pub fn hide<T: Any>(mut self) -> Self {
        self.hidden.push(Arc::new(Hidden::<T>(PhantomData)));
        self
    }

    /// The value as JSON, if it is of a type that is shown.
    pub fn shown(&self, value: &dyn Any) -> Option<Value> {
        if self.hides(value.type_id()) {
            return None;
        }
        self.shown.iter().find_map(|shown| shown.any(value))
    }

    /// Whether values of this type are hidden.
    pub fn hides(&self, type_id: TypeId) -> bool {
        self.hidden.iter().any(|hidden| hidden.id() == type_id)
    }

    /// Whether values of this type are shown wherever they are seen.
    pub fn shows(&self, type_id: TypeId) -> bool {
        !self.hides(type_id) && self.shown.iter().any(|shown| shown.id() == type_id)
    }

    /// What a run or handler returned.
    pub(crate) fn output(&self, value: &dyn WorkflowOutputValue) -> Option<Value> {
        if self.hides(value.as_any().type_id()) {
            return None;
        }
        value.as_serde().ok().map(to_json)
    }

    pub(crate) fn hides_start(&self, input: &ExecuteWorkflowInput) -> bool {
        self.hidden.iter().any(|hidden| hidden.is_start(input))
    }

    pub(crate) fn hides_init(&self, input: &InitializeWorkflowInput) -> bool {
        self.hidden.iter().any(|hidden| hidden.is_init(input))
    }

    pub(crate) fn activity(&self, input: &ScheduleActivityInput) -> Option<Value> {
        self.find(|value_type| value_type.activity(input))
    }

    pub(crate) fn local_activity(&self, input: &ScheduleLocalActivityInput) -> Option<Value> {
        self.find(|value_type| value_type.local_activity(input))
    }

    pub(crate) fn signal(&self, input: &HandleSignalInput) -> Option<Value> {
        self.find(|value_type| value_type.signal(input))
    }

    pub(crate) fn update(&self, input: &HandleUpdateInput) -> Option<Value> {
        self.find(|value_type| value_type.update(input))
    }

    fn find(&self, see: impl Fn(&dyn ValueType) -> Option<Value>) -> Option<Value> {
        let hides = |shown: &dyn ValueType| self.hides(shown.id());
        self.shown.iter().find_map(|shown| see(&**shown).filter(|_| !hides(&**shown)))
    }
}

impl Default for ValueTypes {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ValueTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueTypes")
            .field("shown", &self.shown.len())
            .field("hidden", &self.hidden.len())
            .finish()
    }
}

/// A value as the fields of a span's input or output: an object as it is, anything else under
/// `name`. Nothing where there is no value.
pub fn as_fields(value: Value, name: &str) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => Map::from_iter([(name.to_owned(), other)]),
    }
}

/// Looks for values of one type where the SDK has values of any type.
trait ValueType: Send + Sync {
    fn id(&self) -> TypeId;

    fn any(&self, _value: &dyn Any) -> Option<Value> {
        None
    }

    fn activity(&self, _input: &ScheduleActivityInput) -> Option<Value> {
        None
    }

    fn local_activity(&self, _input: &ScheduleLocalActivityInput) -> Option<Value> {
        None
    }

    fn signal(&self, _input: &HandleSignalInput) -> Option<Value> {
        None
    }

    fn update(&self, _input: &HandleUpdateInput) -> Option<Value> {
        None
    }

    fn is_start(&self, _input: &ExecuteWorkflowInput) -> bool {
        false
    }

    fn is_init(&self, _input: &InitializeWorkflowInput) -> bool {
        false
    }
}

struct Shown<T>(PhantomData<fn() -> T>);

impl<T: Serialize + Any> ValueType for Shown<T> {
    fn id(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn any(&self, value: &dyn Any) -> Option<Value> {
        value.downcast_ref::<T>().map(to_json)
    }

    fn activity(&self, input: &ScheduleActivityInput) -> Option<Value> {
        input.input_ref::<T>().map(to_json)
    }

    fn local_activity(&self, input: &ScheduleLocalActivityInput) -> Option<Value> {
        input.input_ref::<T>().map(to_json)
    }

    fn signal(&self, input: &HandleSignalInput) -> Option<Value> {
        input.input_ref::<T>().map(to_json)
    }

    fn update(&self, input: &HandleUpdateInput) -> Option<Value> {
        input.input_ref::<T>().map(to_json)
    }
}

struct Hidden<T>(PhantomData<fn() -> T>);

impl<T: Any> ValueType for Hidden<T> {
    fn id(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn is_start(&self, input: &ExecuteWorkflowInput) -> bool {
        input.input_ref::<T>().is_some()
    }

    fn is_init(&self, input: &InitializeWorkflowInput) -> bool {
        input.input_ref::<T>().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Serialize)]
    struct Order {
        item: &'static str,
    }

    #[test]
    fn usual_types_are_shown_and_others_by_choice() {
        let types = ValueTypes::new();
        assert_eq!(types.shown(&7_u32), Some(json!(7)));
        assert_eq!(types.shown(&Order { item: "book" }), None);
        let types = types.show::<Order>();
        assert_eq!(types.shown(&Order { item: "book" }), Some(json!({"item": "book"})));
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        let types = ValueTypes::new().show::<Order>().hide::<Order>().hide::<String>();
        assert_eq!(types.shown(&Order { item: "book" }), None);
        assert_eq!(types.shown(&"text".to_owned()), None);
        assert!(!types.shows(TypeId::of::<Order>()) && types.shows(TypeId::of::<u32>()));
    }

    #[test]
    fn an_object_is_fields_already() {
        assert_eq!(Value::from(as_fields(json!({"a": 1}), "input")), json!({"a": 1}));
        assert_eq!(Value::from(as_fields(json!([1]), "input")), json!({"input": [1]}));
        assert!(as_fields(Value::Null, "output").is_empty());
    }
}
