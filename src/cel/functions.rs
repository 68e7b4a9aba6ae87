//! Every function an expression may call: its signatures, and what runs.
//!
//! Owns: the table of overloads with upstream's ids, for CEL's standard library and Kubernetes' libraries.
//! Called by: the checker (signatures) and the compilation of programs (what runs).
//! Never: implements one; `library` does.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::types::{self, Type};

pub struct Overload {
    pub id: &'static str,
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
}

/// One overload a line: name, id, arguments, result. A name that begins with a dot is called on its first argument.
/// `N` in a line stands for each type of `EACH` in turn, `n` for its short name in ids.
const TABLE: &str = "
!_ logical_not bool -> bool
_?_:_ conditional bool A A -> A
_&&_ logical_and bool bool -> bool
_||_ logical_or bool bool -> bool
@not_strictly_false not_strictly_false bool -> bool
-_ negate_int64 int -> int
-_ negate_double double -> double
_+_ add_bytes bytes bytes -> bytes
_+_ add_double double double -> double
_+_ add_duration_duration duration duration -> duration
_+_ add_duration_timestamp duration timestamp -> timestamp
_+_ add_timestamp_duration timestamp duration -> timestamp
_+_ add_int64 int int -> int
_+_ add_list list<A> list<A> -> list<A>
_+_ add_string string string -> string
_+_ add_uint64 uint uint -> uint
_-_ subtract_double double double -> double
_-_ subtract_duration_duration duration duration -> duration
_-_ subtract_int64 int int -> int
_-_ subtract_timestamp_duration timestamp duration -> timestamp
_-_ subtract_timestamp_timestamp timestamp timestamp -> duration
_-_ subtract_uint64 uint uint -> uint
_*_ multiply_double double double -> double
_*_ multiply_int64 int int -> int
_*_ multiply_uint64 uint uint -> uint
_/_ divide_double double double -> double
_/_ divide_int64 int int -> int
_/_ divide_uint64 uint uint -> uint
_%_ modulo_int64 int int -> int
_%_ modulo_uint64 uint uint -> uint
_==_ equals A A -> bool
_!=_ not_equals A A -> bool
_<_ less_n N N -> bool
_<_ less_int64_double int double -> bool
_<_ less_int64_uint64 int uint -> bool
_<_ less_uint64_double uint double -> bool
_<_ less_uint64_int64 uint int -> bool
_<_ less_double_int64 double int -> bool
_<_ less_double_uint64 double uint -> bool
_<=_ less_equals_n N N -> bool
_<=_ less_equals_int64_double int double -> bool
_<=_ less_equals_int64_uint64 int uint -> bool
_<=_ less_equals_uint64_double uint double -> bool
_<=_ less_equals_uint64_int64 uint int -> bool
_<=_ less_equals_double_int64 double int -> bool
_<=_ less_equals_double_uint64 double uint -> bool
_>_ greater_n N N -> bool
_>_ greater_int64_double int double -> bool
_>_ greater_int64_uint64 int uint -> bool
_>_ greater_uint64_double uint double -> bool
_>_ greater_uint64_int64 uint int -> bool
_>_ greater_double_int64 double int -> bool
_>_ greater_double_uint64 double uint -> bool
_>=_ greater_equals_n N N -> bool
_>=_ greater_equals_int64_double int double -> bool
_>=_ greater_equals_int64_uint64 int uint -> bool
_>=_ greater_equals_uint64_double uint double -> bool
_>=_ greater_equals_uint64_int64 uint int -> bool
_>=_ greater_equals_double_int64 double int -> bool
_>=_ greater_equals_double_uint64 double uint -> bool
_[_] index_list list<A> int -> A
_[_] index_map map<A,B> A -> B
_[_] optional_list_index_int opt<list<A>> int -> opt<A>
_[_] optional_map_index_value opt<map<A,B>> A -> opt<B>
_[?_] list_optindex_optional_int list<A> int -> opt<A>
_[?_] optional_list_optindex_optional_int opt<list<A>> int -> opt<A>
_[?_] map_optindex_optional_value map<A,B> A -> opt<B>
_[?_] optional_map_optindex_optional_value opt<map<A,B>> A -> opt<B>
@in in_list A list<A> -> bool
@in in_map A map<A,B> -> bool
size size_bytes bytes -> int
size size_list list<A> -> int
size size_map map<A,B> -> int
size size_string string -> int
.size bytes_size bytes -> int
.size list_size list<A> -> int
.size map_size map<A,B> -> int
.size string_size string -> int
type type A -> type<A>
dyn to_dyn A -> dyn
bool bool_to_bool bool -> bool
bool string_to_bool string -> bool
bytes bytes_to_bytes bytes -> bytes
bytes string_to_bytes string -> bytes
double double_to_double double -> double
double int64_to_double int -> double
double string_to_double string -> double
double uint64_to_double uint -> double
duration duration_to_duration duration -> duration
duration int64_to_duration int -> duration
duration string_to_duration string -> duration
int int64_to_int64 int -> int
int double_to_int64 double -> int
int duration_to_int64 duration -> int
int string_to_int64 string -> int
int timestamp_to_int64 timestamp -> int
int uint64_to_int64 uint -> int
string string_to_string string -> string
string bool_to_string bool -> string
string bytes_to_string bytes -> string
string double_to_string double -> string
string duration_to_string duration -> string
string int64_to_string int -> string
string timestamp_to_string timestamp -> string
string uint64_to_string uint -> string
string ip_to_string IP -> string
string cidr_to_string CIDR -> string
timestamp timestamp_to_timestamp timestamp -> timestamp
timestamp int64_to_timestamp int -> timestamp
timestamp string_to_timestamp string -> timestamp
uint uint64_to_uint64 uint -> uint
uint double_to_uint64 double -> uint
uint int64_to_uint64 int -> uint
uint string_to_uint64 string -> uint
.contains contains_string string string -> bool
.endsWith ends_with_string string string -> bool
.startsWith starts_with_string string string -> bool
matches matches string string -> bool
.matches matches_string string string -> bool
.getFullYear timestamp_to_year timestamp -> int
.getFullYear timestamp_to_year_with_tz timestamp string -> int
.getMonth timestamp_to_month timestamp -> int
.getMonth timestamp_to_month_with_tz timestamp string -> int
.getDayOfYear timestamp_to_day_of_year timestamp -> int
.getDayOfYear timestamp_to_day_of_year_with_tz timestamp string -> int
.getDayOfMonth timestamp_to_day_of_month timestamp -> int
.getDayOfMonth timestamp_to_day_of_month_with_tz timestamp string -> int
.getDate timestamp_to_day_of_month_1_based timestamp -> int
.getDate timestamp_to_day_of_month_1_based_with_tz timestamp string -> int
.getDayOfWeek timestamp_to_day_of_week timestamp -> int
.getDayOfWeek timestamp_to_day_of_week_with_tz timestamp string -> int
.getHours timestamp_to_hours timestamp -> int
.getHours timestamp_to_hours_with_tz timestamp string -> int
.getHours duration_to_hours duration -> int
.getMinutes timestamp_to_minutes timestamp -> int
.getMinutes timestamp_to_minutes_with_tz timestamp string -> int
.getMinutes duration_to_minutes duration -> int
.getSeconds timestamp_to_seconds timestamp -> int
.getSeconds timestamp_to_seconds_tz timestamp string -> int
.getSeconds duration_to_seconds duration -> int
.getMilliseconds timestamp_to_milliseconds timestamp -> int
.getMilliseconds timestamp_to_milliseconds_with_tz timestamp string -> int
.getMilliseconds duration_to_milliseconds duration -> int
optional.of optional_of A -> opt<A>
optional.ofNonZeroValue optional_ofNonZeroValue A -> opt<A>
optional.none optional_none -> opt<A>
optional.unwrap optional_unwrap list<opt<A>> -> list<A>
.unwrapOpt optional_unwrapOpt list<opt<A>> -> list<A>
.value optional_value opt<A> -> A
.hasValue optional_hasValue opt<A> -> bool
.or optional_or_optional opt<A> opt<A> -> opt<A>
.orValue optional_orValue_value opt<A> A -> A
cel.@mapInsert @cel_mapInsert_map_map map<A,B> map<A,B> -> map<A,B>
cel.@mapInsert @cel_mapInsert_map_key_value map<A,B> A B -> map<A,B>
.charAt string_char_at_int string int -> string
.indexOf string_index_of_string string string -> int
.indexOf string_index_of_string_int string string int -> int
.join list_join list<string> -> string
.join list_join_string list<string> string -> string
.lastIndexOf string_last_index_of_string string string -> int
.lastIndexOf string_last_index_of_string_int string string int -> int
.lowerAscii string_lower_ascii string -> string
.upperAscii string_upper_ascii string -> string
.replace string_replace_string_string string string string -> string
.replace string_replace_string_string_int string string string int -> string
.split string_split_string string string -> list<string>
.split string_split_string_int string string int -> list<string>
.substring string_substring_int string int -> string
.substring string_substring_int_int string int int -> string
.trim string_trim string -> string
.format string_format string list<dyn> -> string
strings.quote strings_quote string -> string
.slice list_slice list<A> int int -> list<A>
.flatten list_flatten list<list<A>> -> list<A>
.flatten list_flatten_int list<dyn> int -> list<dyn>
.distinct list_distinct list<A> -> list<A>
.reverse list_reverse list<A> -> list<A>
.sort list_n_sort list<N> -> list<N>
.@sortByAssociatedKeys list_n_sortByAssociatedKeys list<A> list<N> -> list<A>
lists.range lists_range int -> list<int>
.first list_first list<A> -> opt<A>
.last list_last list<A> -> opt<A>
sets.contains list_sets_contains_list list<A> list<A> -> bool
sets.equivalent list_sets_equivalent_list list<A> list<A> -> bool
sets.intersects list_sets_intersects_list list<A> list<A> -> bool
.isSorted list_n_is_sorted_bool list<N> -> bool
.sum list_int_sum_int list<int> -> int
.sum list_uint_sum_uint list<uint> -> uint
.sum list_double_sum_double list<double> -> double
.sum list_duration_sum_duration list<duration> -> duration
.max list_n_max list<N> -> N
.min list_n_min list<N> -> N
.indexOf list_a_index_of_int list<A> A -> int
.lastIndexOf list_a_last_index_of_int list<A> A -> int
.find string_find_string string string -> string
.findAll string_find_all_string string string -> list<string>
.findAll string_find_all_string_int string string int -> list<string>
url string_to_url string -> URL
isURL is_url_string string -> bool
.getScheme url_get_scheme URL -> string
.getHost url_get_host URL -> string
.getHostname url_get_hostname URL -> string
.getPort url_get_port URL -> string
.getEscapedPath url_get_escaped_path URL -> string
.getQuery url_get_query URL -> map<string,list<string>>
ip string_to_ip string -> IP
isIP is_ip string -> bool
ip.isCanonical ip_is_canonical string -> bool
.family ip_family IP -> int
.isUnspecified ip_is_unspecified IP -> bool
.isLoopback ip_is_loopback IP -> bool
.isLinkLocalMulticast ip_is_link_local_multicast IP -> bool
.isLinkLocalUnicast ip_is_link_local_unicast IP -> bool
.isGlobalUnicast ip_is_global_unicast IP -> bool
cidr string_to_cidr string -> CIDR
isCIDR is_cidr string -> bool
.containsIP cidr_contains_ip_string CIDR string -> bool
.containsIP cidr_contains_ip_ip CIDR IP -> bool
.containsCIDR cidr_contains_cidr_string CIDR string -> bool
.containsCIDR cidr_contains_cidr CIDR CIDR -> bool
.ip cidr_ip CIDR -> IP
.prefixLength cidr_prefix_length CIDR -> int
.masked cidr_masked CIDR -> CIDR
quantity string_to_quantity string -> Quantity
isQuantity is_quantity_string string -> bool
sign quantity_sign Quantity -> int
.isGreaterThan quantity_is_greater_than Quantity Quantity -> bool
.isLessThan quantity_is_less_than Quantity Quantity -> bool
.compareTo quantity_compare_to Quantity Quantity -> int
.asApproximateFloat quantity_get_float Quantity -> double
.asInteger quantity_get_int Quantity -> int
.isInteger quantity_is_integer Quantity -> bool
.add quantity_add Quantity Quantity -> Quantity
.add quantity_add_int Quantity int -> Quantity
.sub quantity_sub Quantity Quantity -> Quantity
.sub quantity_sub_int Quantity int -> Quantity
semver string_to_semver string -> Semver
semver string_bool_to_semver string bool -> Semver
isSemver is_semver_string string -> bool
isSemver is_semver_string_bool string bool -> bool
.isGreaterThan semver_is_greater_than Semver Semver -> bool
.isLessThan semver_is_less_than Semver Semver -> bool
.compareTo semver_compare_to Semver Semver -> int
.major semver_major Semver -> int
.minor semver_minor Semver -> int
.patch semver_patch Semver -> int
format.named format-named string -> opt<Format>
.validate format-validate Format string -> opt<list<string>>
format.dns1123Label format.dns1123Label -> Format
format.dns1123Subdomain format.dns1123Subdomain -> Format
format.dns1035Label format.dns1035Label -> Format
format.qualifiedName format.qualifiedName -> Format
format.dns1123LabelPrefix format.dns1123LabelPrefix -> Format
format.dns1123SubdomainPrefix format.dns1123SubdomainPrefix -> Format
format.dns1035LabelPrefix format.dns1035LabelPrefix -> Format
format.labelValue format.labelValue -> Format
format.uri format.uri -> Format
format.uuid format.uuid -> Format
format.byte format.byte -> Format
format.date format.date -> Format
format.datetime format.datetime -> Format
jsonpatch.escapeKey string_jsonpatch_escapeKey_string string -> string
.path authorizer_path Authorizer string -> PathCheck
.group authorizer_group Authorizer string -> GroupCheck
.serviceAccount authorizer_serviceaccount Authorizer string string -> Authorizer
.resource groupcheck_resource GroupCheck string -> ResourceCheck
.subresource resourcecheck_subresource ResourceCheck string -> ResourceCheck
.namespace resourcecheck_namespace ResourceCheck string -> ResourceCheck
.name resourcecheck_name ResourceCheck string -> ResourceCheck
.fieldSelector authorizer_fieldselector ResourceCheck string -> ResourceCheck
.labelSelector authorizer_labelselector ResourceCheck string -> ResourceCheck
.check pathcheck_check PathCheck string -> Decision
.check resourcecheck_check ResourceCheck string -> Decision
.errored decision_errored Decision -> bool
.error decision_error Decision -> string
.allowed decision_allowed Decision -> bool
.reason decision_reason Decision -> string
";

/// What has an order: type and short name.
const EACH: [(&str, &str); 8] = [
    ("bool", "bool"),
    ("int", "int64"),
    ("uint", "uint64"),
    ("double", "double"),
    ("string", "string"),
    ("bytes", "bytes"),
    ("timestamp", "timestamp"),
    ("duration", "duration"),
];

/// The overloads of a function, in the order they are tried.
pub fn overloads(name: &str) -> Option<&'static [Overload]> {
    static DECLARED: OnceLock<HashMap<String, Vec<Overload>>> = OnceLock::new();
    DECLARED.get_or_init(declare).get(name).map(Vec::as_slice)
}

fn declare() -> HashMap<String, Vec<Overload>> {
    let mut declared: HashMap<String, Vec<Overload>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        if !words[2..].iter().any(|word| word.contains('N')) {
            add(&mut declared, &words, words[1]);
            continue;
        }
        for (each, short) in EACH {
            let typed: Vec<String> = words[2..].iter().map(|word| word.replace('N', each)).collect();
            let id: String =
                words[1].split('_').map(|part| if part == "n" { short } else { part }).collect::<Vec<_>>().join("_");
            let full: Vec<&str> = words[..2].iter().copied().chain(typed.iter().map(String::as_str)).collect();
            // The table is read once, so what its ids cost is paid once.
            add(&mut declared, &full, Box::leak(id.into_boxed_str()));
        }
    }
    declared
}

fn add(declared: &mut HashMap<String, Vec<Overload>>, words: &[&str], id: &'static str) {
    let (name, member) = match words[0].strip_prefix('.') {
        Some(name) => (name, true),
        None => (words[0], false),
    };
    let arrow = words.iter().position(|word| *word == "->").expect("each line of the table has a result");
    let overload = Overload {
        id,
        member,
        args: words[2..arrow].iter().map(|word| read(word)).collect(),
        result: read(words[arrow + 1]),
    };
    declared.entry(name.into()).or_default().push(overload);
}

fn read(word: &str) -> Type {
    if let Some((outer, rest)) = word.split_once('<') {
        let inner = &rest[..rest.len() - 1];
        return match outer {
            "list" => Type::list(read(inner)),
            "opt" => Type::optional(read(inner)),
            "type" => Type::Type(Arc::new(read(inner))),
            _ => {
                let (key, value) = inner.split_once(',').expect("a map has a key and a value");
                Type::map(read(key), read(value))
            }
        };
    }
    match word {
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "URL" => Type::Opaque(types::URL),
        "IP" => Type::Opaque(types::IP),
        "CIDR" => Type::Opaque(types::CIDR),
        "Quantity" => Type::Opaque(types::QUANTITY),
        "Semver" => Type::Opaque(types::SEMVER),
        "Format" => Type::Opaque(types::FORMAT),
        "Authorizer" => Type::Opaque(types::AUTHORIZER),
        "PathCheck" => Type::Opaque(types::PATH_CHECK),
        "GroupCheck" => Type::Opaque(types::GROUP_CHECK),
        "ResourceCheck" => Type::Opaque(types::RESOURCE_CHECK),
        "Decision" => Type::Opaque(types::DECISION),
        _ => Type::named(word).unwrap_or_else(|| Type::Param(word.into())),
    }
}
