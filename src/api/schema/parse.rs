//! The text of `schema.table` becomes arrays.
//!
//! Owns: the table's syntax. A table that does not parse is a defect of the build, so it panics with what it met.
//! Called by: `schema`, once in the life of a process.
//! Never: reads anything but that table.

use std::collections::HashMap;

use super::*;

struct Parser {
    schema: Schema,
    /// (package, type name) -> row, known before the fields are read, because types refer to later ones.
    types: HashMap<(u16, &'static str), u16>,
    shapes: HashMap<(u16, &'static str), Shape>,
    canonical: HashMap<(Form, &'static str), Shape>,
}

pub(super) fn parse(table: &'static str) -> Schema {
    let mut p = Parser {
        schema: Schema {
            packages: Vec::new(),
            types: Vec::new(),
            fields: Vec::new(),
            extras: vec![Extra::default()],
            shapes: Vec::new(),
        },
        types: HashMap::new(),
        shapes: HashMap::new(),
        canonical: HashMap::new(),
    };
    p.read_types(table);
    p.read_fields(table);
    p.index_fields();
    p.schema
}

fn lines(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    table.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(' '))
}

impl Parser {
    fn read_types(&mut self, table: &'static str) {
        let mut package = 0;
        for (word, rest) in lines(table) {
            match word {
                "package" => {
                    let path = rest.split_once(' ').expect("package NUMBER PATH").1;
                    self.schema.packages.push(Package { path });
                }
                "in" => package = rest.parse().expect("in NUMBER"),
                "type" if is_type_line(rest) => self.read_type(package, rest),
                _ => {}
            }
        }
    }

    fn read_type(&mut self, package: u16, rest: &'static str) {
        let mut words = rest.split(' ');
        let name = words.next().expect("type NAME");
        let (mut atomic, mut unions) = (false, "");
        for word in words {
            atomic |= word == "atomic";
            unions = word.strip_prefix("unions=").unwrap_or(unions);
        }
        self.types.insert((package, name), self.schema.types.len() as u16);
        let empty = || Vec::new().into_boxed_slice();
        let row =
            TypeRow { name, package, atomic, unions, fields: 0..0, by_name: empty(), by_tag: empty(), always: empty() };
        self.schema.types.push(row);
    }

    fn read_fields(&mut self, table: &'static str) {
        let (mut package, mut at) = (0, usize::MAX);
        for (word, rest) in lines(table) {
            match word {
                "package" => {}
                "in" => package = rest.parse().expect("in NUMBER"),
                "type" if is_type_line(rest) => {
                    at = at.wrapping_add(1);
                    let start = self.schema.fields.len() as u16;
                    self.schema.types[at].fields = start..start;
                }
                name => {
                    let row = self.field(package, name, rest);
                    self.schema.fields.push(row);
                    self.schema.types[at].fields.end += 1;
                }
            }
        }
    }

    fn field(&mut self, package: u16, name: &'static str, rest: &'static str) -> FieldRow {
        // The values of an enum may contain spaces, so they stand last.
        let (rest, enumeration) = rest.split_once(" enum=").unwrap_or((rest, ""));
        let mut words = rest.split(' ');
        let tag = words.next().and_then(|t| t.parse().ok()).expect("field NAME TAG");
        let shape = self.shape(package, words.next().expect("field NAME TAG SHAPE"));
        if name == "^" {
            return FieldRow { name: "", tag, shape, flags: INLINE, extra: 0 };
        }
        let flags = words.next().expect("field NAME TAG SHAPE FLAGS").bytes().map(flag).fold(0, |all, one| all | one);
        let mut extra = Extra { enumeration, ..Extra::default() };
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "go" => extra.go_name = value,
                "list" => extra.list_type = Some(list_type(value)),
                "keys" => extra.list_map_keys = value.split(',').collect(),
                "atomic" => extra.atomic = true,
                "granular" => extra.granular = true,
                "patch" => extra.patch_strategy = value,
                "merge" => extra.patch_merge_key = value,
                "format" => extra.format = value,
                "default" => extra.default = value,
                _ => panic!("schema.table: {name} has an unknown fact {word}"),
            }
        }
        FieldRow { name, tag, shape, flags, extra: self.extra(extra) }
    }

    fn extra(&mut self, extra: Extra) -> u16 {
        let known = self.schema.extras.iter().position(|e| *e == extra);
        known.unwrap_or_else(|| {
            self.schema.extras.push(extra);
            self.schema.extras.len() - 1
        }) as u16
    }

    fn shape(&mut self, package: u16, text: &'static str) -> Shape {
        if let Some(shape) = self.shapes.get(&(package, text)) {
            return *shape;
        }
        // `[]string~~v1.Verbs` is a list with a name, `[]string~v1.Verb` a list of something with a name.
        let composite = ["[]", "{}", "items"].iter().any(|start| text.starts_with(start));
        let (form_text, go_name) = match (text.rsplit_once("~~"), composite) {
            (Some(split), _) => split,
            (None, true) => (text, ""),
            (None, false) => text.split_once('~').unwrap_or((text, "")),
        };
        let form = self.form(package, form_text);
        let shape = *self.canonical.entry((form, go_name)).or_insert_with(|| {
            self.schema.shapes.push(ShapeRow { form, go_name });
            Shape((self.schema.shapes.len() - 1) as u16)
        });
        self.shapes.insert((package, text), shape);
        shape
    }

    fn form(&mut self, package: u16, text: &'static str) -> Form {
        if let Some(element) = text.strip_prefix("items[]") {
            return Form::Items(self.shape(package, element));
        }
        if let Some(element) = text.strip_prefix("[]") {
            return Form::List(self.shape(package, element));
        }
        if let Some(value) = text.strip_prefix("{}") {
            return Form::Map(self.shape(package, value));
        }
        match text {
            "string" => Form::String,
            "bool" => Form::Bool,
            "int32" => Form::Int32,
            "int64" => Form::Int64,
            "float64" => Form::Float64,
            "bytes" => Form::Bytes,
            "Quantity" => Form::Quantity,
            "IntOrString" => Form::IntOrString,
            "Time" => Form::Time,
            "MicroTime" => Form::MicroTime,
            "RawExtension" => Form::RawExtension,
            "FieldsV1" => Form::FieldsV1,
            "JSON" => Form::Json,
            "SchemaOrArray" => Form::SchemaOrArray,
            "SchemaOrBool" => Form::SchemaOrBool,
            "SchemaOrStrings" => Form::SchemaOrStrings,
            _ => {
                let (package, name) = match text.split_once(':') {
                    Some((number, name)) => (number.parse().expect("NUMBER:Type"), name),
                    None => (package, text),
                };
                Form::Object(Type(*self.types.get(&(package, name)).unwrap_or_else(|| panic!("no type {text}"))))
            }
        }
    }

    fn index_fields(&mut self) {
        let sorted: Vec<Box<[Field]>> = (0..self.schema.types.len()).map(|t| self.flatten(t)).collect();
        let schema = &mut self.schema;
        for (row, by_name) in schema.types.iter_mut().zip(sorted) {
            let always = |f: &&Field| {
                let field = &schema.fields[f.0 as usize];
                let is_struct = form_is_struct(schema.shapes[field.shape.0 as usize].form);
                let omits = field.flags & OMIT_ZERO != 0
                    || field.flags & OMIT_EMPTY != 0 && (field.flags & POINTER != 0 || !is_struct);
                !omits
            };
            let mut by_tag: Vec<Field> = row.fields.clone().map(Field).collect();
            let tag = |f: &Field| schema.fields[f.0 as usize].tag;
            by_tag.retain(|f| tag(f) != 0);
            by_tag.sort_by_key(tag);
            row.by_tag = by_tag.into();
            row.always = by_name.iter().filter(always).copied().collect();
            row.by_name = by_name;
        }
    }

    fn flatten(&self, row: usize) -> Box<[Field]> {
        let mut found = Vec::new();
        let mut open = vec![row];
        while let Some(row) = open.pop() {
            for id in self.schema.types[row].fields.clone() {
                let field = &self.schema.fields[id as usize];
                match self.schema.shapes[field.shape.0 as usize].form {
                    Form::Object(inlined) if field.flags & INLINE != 0 => open.push(inlined.0 as usize),
                    _ => found.push(Field(id)),
                }
            }
        }
        found.sort_by_key(|f| self.schema.fields[f.0 as usize].name);
        found.into()
    }
}

/// A field may be called `type` too; its second word is a number.
fn is_type_line(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_uppercase())
}

fn form_is_struct(form: Form) -> bool {
    use Form::*;
    !matches!(form, String | Bool | Int32 | Int64 | Float64 | Bytes | List(_) | Map(_) | Items(_))
}

fn flag(letter: u8) -> u8 {
    match letter {
        b'*' => POINTER,
        b'?' => OMIT_EMPTY,
        b'0' => OMIT_ZERO,
        b'!' => REQUIRED,
        _ => 0,
    }
}

fn list_type(word: &str) -> ListType {
    match word {
        "set" => ListType::Set,
        "map" => ListType::Map,
        _ => ListType::Atomic,
    }
}
