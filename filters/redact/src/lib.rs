#[allow(unsafe_code)] mod contract { wit_bindgen::generate!({ world: "narration-filter", path: "../../wit/0.1.0" });
 export!(R with_types_in self); use super::R; }
use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};
struct R;
impl Guest for R {
 fn describe() -> Description { Description{name:String::new(),version:String::new(),kinds:None,redacts:false,config_schema:String::new()} }
 fn configure(_: String) -> Result<(), String> { Ok(()) }
 fn narrate(_: Context, n: Narration) -> Narration { n }
}
