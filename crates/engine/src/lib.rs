pub mod value;
pub mod pixels;
pub mod exec { 
 #[derive(Debug,Clone)] pub struct Raised { pub kind: String, pub message: String }
 impl Raised { pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self { Raised{kind:kind.into(),message:message.into()} } }
}
