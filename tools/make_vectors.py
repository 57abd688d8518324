#!/usr/bin/env python3
"""Writes argus-core/tests/vectors/{records,refused,chain}.jsonl from docs/record-format.md.

    make_vectors.py            write them
    make_vectors.py --check    exit 1 if what is checked in differs

records.jsonl: {"name","fields","raw","canonical","checksum"}: `fields` are the present non-JSON fields but checksum, `raw` the JSON
texts of context, old_value and new_value as they may be given. A name that begins with `stored_` is one that only a reader meets:
writers refuse the raw text from callers. refused.jsonl: {"name","raw","reason"}: JSON texts that a writer refuses as a value.
chain.jsonl: a valid JSONL trail. The numbers and strings below carry their canonical text written out by hand.
"""
import argparse
import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import argus_verify as av  # noqa: E402

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "argus-core", "tests", "vectors")


def uuid(seed, version):
    h = hashlib.sha256(seed.encode()).hexdigest()
    return "%s-%s-%d%s-%s%s-%s" % (h[:8], h[8:12], version, h[13:16], "89ab"[int(h[16], 16) % 4], h[17:20], h[20:32])


LOG, ALPHA, BETA = uuid("log", 4), uuid("alpha", 4), uuid("beta", 4)


def base(seq, /, **more):
    f = {
        "timestamp": "2024-02-29T23:59:59.123456789Z", "level": "INFO", "event": "user_login", "component": "auth",
        "original_output_file": "audit.log", "process_id": 4242, "process_name": "served", "record_id": uuid("record %d" % seq, 7),
        "writer": ALPHA, "writer_seq": seq, "created_at": "2024-03-01 00:00:00", "seq": seq,
    }
    if seq > 1:
        f["prev_hash"] = hashlib.sha256(b"record %d" % (seq - 1)).hexdigest()
    f.update(more)
    return {k: v for k, v in f.items() if v is not None}


NUMBERS = [  # name, raw, canonical
    ("zero", "0", "0"), ("one", "1", "1"), ("minus_one", "-1", "-1"),
    ("i64_max", "9223372036854775807", "9223372036854775807"), ("i64_max_plus_one", "9223372036854775808", "9223372036854775808"),
    ("i64_min", "-9223372036854775808", "-9223372036854775808"), ("u64_max", "18446744073709551615", "18446744073709551615"),
    ("safe_max", "9007199254740991", "9007199254740991"), ("two_53", "9007199254740992", "9007199254740992"),
    ("two_53_plus_one", "9007199254740993", "9007199254740993"), ("minus_two_53_minus_one", "-9007199254740993", "-9007199254740993"),
    ("minus_two_53", "-9007199254740992", "-9007199254740992"),
    ("two_53_plus_one_as_double", "9007199254740993.0", "9007199254740992"), ("two_53_plus_one_exponent", "9007199254740993e0", "9007199254740992"),
    ("u64_max_as_double", "18446744073709551615.0", "18446744073709552000"), ("i64_min_as_double", "-9223372036854775808.0", "-9223372036854776000"),
    ("minus_zero", "-0", "0"), ("minus_zero_fraction", "-0.0", "0"), ("minus_zero_exponent", "-0e0", "0"), ("zero_exponent", "0e5", "0"),
    ("one_fraction", "1.0", "1"), ("trailing_zero", "4.50", "4.5"), ("tenth", "0.1", "0.1"), ("ten_minus_six", "0.000001", "0.000001"),
    ("ten_minus_seven", "1e-7", "1e-7"), ("ten_minus_seven_digits", "0.0000001", "1e-7"), ("two_digits_minus_seven", "0.00000012", "1.2e-7"),
    ("ten_plus_20", "1e20", "100000000000000000000"), ("ten_plus_21", "1e21", "1e+21"), ("ten_plus_21_capital", "1E+21", "1e+21"),
    ("below_ten_plus_21", "999999999999999900000.0", "999999999999999900000"), ("minus_ten_plus_20", "-1e20", "-100000000000000000000"),
    ("smallest", "5e-324", "5e-324"), ("below_smallest", "2e-324", "0"), ("largest", "1.7976931348623157e308", "1.7976931348623157e+308"),
    ("minus_largest", "-1.7976931348623157E+308", "-1.7976931348623157e+308"), ("smallest_normal", "2.2250738585072014e-308", "2.2250738585072014e-308"),
    ("largest_subnormal", "2.225073858507201e-308", "2.225073858507201e-308"), ("rfc_333", "333333333.33333329", "333333333.3333333"),
    ("rfc_1e30", "1E30", "1e+30"), ("rfc_2e-3", "2e-3", "0.002"), ("rfc_tiny", "0.000000000000000000000000001", "1e-27"),
    ("tie_to_even", "9007199254740993.5", "9007199254740994"), ("two_68", "295147905179352830000.0", "295147905179352830000"),
    ("hundred_exponent", "1e2", "100"), ("sum", "0.30000000000000004", "0.30000000000000004"),
    ("many_digits", "0.1000000000000000055511151231257827021181583404541015625", "0.1"), ("ten_to_23", "1e23", "1e+23"),
    ("stored_ten_plus_20_digits", "100000000000000000000", "100000000000000000000"),
    ("stored_two_64_digits", "18446744073709552000", "18446744073709552000"), ("stored_minus_two_63_digits", "-9223372036854776000", "-9223372036854776000"),
]

STRINGS = [
    ("two_escapes", r'"\"\\"', r'"\"\\"'), ("solidus", r'"a\/b/c"', '"a/b/c"'), ("short_escapes", r'"\u0008\u0009\u000a\u000C\u000D"', r'"\b\t\n\f\r"'),
    ("control_upper_hex", r'"\u001F\u000B\u0000"', r'"\u001f\u000b\u0000"'), ("delete", r'"\u007f"', '"\x7f"'), ("c1", r'"\u0080\u009f"', '"\x80\x9f"'),
    ("line_separators", r'"\u2028\u2029"', '"\u2028\u2029"'), ("emoji_escaped", r'"\uD83D\uDE00"', '"\U0001f600"'),
    ("emoji_plain", '"\U0001f600"', '"\U0001f600"'), ("letters_escaped", r'"\u0041\u00e9\u20AC"', '"A\xe9\u20ac"'), ("quote_escaped", r'"\u0022\u005c"', r'"\"\\"'),
    ("bom_noncharacter", r'"\ufeff\uffff\uDBFF\uDFFF"', '"\ufeff\uffff\U0010ffff"'), ("not_normalised", r'"e\u0301\u00e9"', '"e\u0301\xe9"'),
    ("empty", '""', '""'), ("html", '"<a href=\'x\'>&amp;</a>"', '"<a href=\'x\'>&amp;</a>"'), ("number_like", '"1.0"', '"1.0"'),
]

NESTED = '[' * 31 + '{ "b" : 1.0 }' + ']' * 31
STRUCTURES = [
    ("null", " null ", "null"), ("true", "true", "true"), ("false", "\tfalse\n", "false"), ("empty_array", "[ ]", "[]"), ("empty_object", "{ \r\n}", "{}"),
    ("array_keeps_order", "[3, 1 ,2,\"b\",\"a\",null]", '[3,1,2,"b","a",null]'),
    ("nested_sorting", '{"z":{"b":1,"a":[{"d":1,"c":2}]},"a":{"y":null,"x":true}}', '{"a":{"x":true,"y":null},"z":{"a":[{"c":2,"d":1}],"b":1}}'),
    ("utf16_key_order", r'{"\ufb33":1,"\ud83d\ude00":2,"\u20ac":3,"\r":4,"1":5,"\u0080":6,"\u00f6":7}',
     '{"\\r":4,"1":5,"\x80":6,"\xf6":7,"\u20ac":3,"\U0001f600":2,"\ufb33":1}'),
    ("empty_key_first", '{"a":1,"":2}', '{"":2,"a":1}'), ("prefix_keys", '{"aa":1,"a":2,"B":3,"a ":4}', '{"B":3,"a":2,"a ":4,"aa":1}'),
    ("keys_sorted_unescaped", r'{"\u0062":1,"a":2,"\"":3,"\\":4,"\u0000":5,"/":6}', r'{"\u0000":5,"\"":3,"/":6,"\\":4,"a":2,"b":1}'),
    ("number_keys_as_text", '{"10":1,"9":2,"-1":3}', '{"-1":3,"10":1,"9":2}'), ("same_key_different_objects", '{"a":{"a":{"a":1}}}', '{"a":{"a":{"a":1}}}'),
    ("dollar_not_reserved", '{"$argus":1,"$Argus.x":2,"x$argus.y":3}', '{"$Argus.x":2,"$argus":1,"x$argus.y":3}'),
    ("reserved_in_a_string", '"$argus.redacted"', '"$argus.redacted"'),
    ("depth_32", NESTED, '[' * 31 + '{"b":1}' + ']' * 31),
    ("stored_redacted", '{ "$argus.redacted" : "key" }', '{"$argus.redacted":"key"}'),
    ("stored_redacted_nested", '{"user":{"password":{"$argus.redacted":"key"},"name":"x"}}', '{"user":{"name":"x","password":{"$argus.redacted":"key"}}}'),
    ("stored_other_reserved", '[{"$argus.future":[1]}]', '[{"$argus.future":[1]}]'),
]


def vector(name, fields, raw, expected=None):
    present = dict(fields)
    for k, text in raw.items():
        present[k] = av.parse_json(text)
    assert not av.check_fields(dict(present, checksum="0" * 64)), (name, av.check_fields(dict(present, checksum="0" * 64)))
    for k, text in (expected or {}).items():
        assert av.canonical(present[k]) == text, (name, av.canonical(present[k]), text)
    canonical = av.record_canonical(present)
    return {"name": name, "fields": fields, "raw": raw, "canonical": canonical, "checksum": av.leaf_hash(canonical)}


def prefixed(group, name):
    return "stored_%s_%s" % (group, name[7:]) if name.startswith("stored_") else "%s_%s" % (group, name)


def records():
    out = []

    def add(name, raw=None, expected=None, **fields):
        raw = dict(raw or {})
        raw.setdefault("context", "{}")
        out.append(vector(name, base(len(out) + 1, **fields), raw, expected))

    add("first_record_no_prev_hash")
    add("second_record_prev_hash")
    add("every_field", {"context": '{"b":2,"a":1}', "old_value": '"x"', "new_value": '{"y":[1.50]}'}, {"context": '{"a":1,"b":2}', "new_value": '{"y":[1.5]}'},
        file_path="/srv/data/x", user_agent="curl/8", actor_id="u-1", actor_type="user", action="update", outcome="success", trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331", stack="main\n  at f")
    for k, v in (("file_path", "/etc/hosts"), ("user_agent", "Mozilla/5.0"), ("actor_id", "svc"), ("actor_type", "service"), ("action", "read"), ("outcome", "failure"),
                 ("trace_id", "00000000000000000000000000000001"), ("span_id", "0000000000000001"), ("stack", "at x")):
        add("only_" + k, **{k: v})
    add("only_old_value", {"old_value": "1"})
    add("only_new_value", {"new_value": "1"})
    add("old_value_null_new_value_empty_string", {"old_value": "null", "new_value": '""'}, {"old_value": "null", "new_value": '""'})
    add("old_value_empty_object_new_value_false", {"old_value": "{}", "new_value": "false"})
    add("empty_always_texts", component="", original_output_file="", process_name="")
    for word in av.WORDS["level"]:
        add("level_" + word.lower(), level=word)
    for word in av.WORDS["actor_type"]:
        add("actor_type_" + word, actor_type=word)
    for word in av.WORDS["outcome"]:
        add("outcome_" + word, outcome=word)
    add("process_id_zero", process_id=0)
    add("process_id_max", process_id=av.I64_MAX)
    add("process_id_above_two_53", process_id=9007199254740993)
    add("seq_and_writer_seq_max", seq=av.I64_MAX, writer_seq=av.I64_MAX)
    add("timestamp_least", timestamp="0000-01-01T00:00:00.000000000Z")
    add("timestamp_greatest", timestamp="9999-12-31T23:59:59.999999999Z", created_at="9999-12-31 23:59:59")
    add("event_256_bytes", event="\u00e9" * 128)
    add("text_fields_escape", component="a\"b\\c/d\n\t\r\b\f\x01\x1f\x7f", process_name="\u2028\U0001f600\ufb33", stack="e\u0301")
    for name, raw, expected in NUMBERS:
        add(prefixed("number", name), {"new_value": raw, "context": '{ "n" : [ %s ] }' % raw}, {"new_value": expected, "context": '{"n":[%s]}' % expected})
    for name, raw, expected in STRINGS:
        add(prefixed("string", name), {"old_value": raw, "context": "{%s : %s}" % (raw, raw)}, {"old_value": expected, "context": "{%s:%s}" % (expected, expected)})
    short = {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r"}
    add("string_every_control", {"old_value": '"' + "".join("\\u%04X" % i for i in range(32)) + '"'},
        {"old_value": '"' + "".join(short.get(i, "\\u%04x" % i) for i in range(32)) + '"'})
    for name, raw, expected in STRUCTURES:
        more = {"new_value": raw}
        if name == "depth_32":
            more["context"] = '{"n":%s}' % raw[1:-1]
        elif expected.startswith("{"):
            more["context"] = raw
        add(prefixed("json", name), more, {"new_value": expected})
    add("context_128_members", {"context": "{" + ",".join('"k%d":%d' % (i, i) for i in range(127, -1, -1)) + "}"},
        {"context": "{" + ",".join('"%s":%s' % (k, k[1:]) for k in sorted("k%d" % i for i in range(128))) + "}"})
    add("context_depth_32_objects", {"context": '{ "a" :' * 31 + "{}" + "}" * 31}, {"context": '{"a":' * 31 + "{}" + "}" * 31})
    add("value_1000_siblings", {"new_value": "[" + ", ".join("[%d]" % i for i in range(1000)) + "]"})
    return out


REFUSED = [
    ("above_u64", "18446744073709551616", "number_range"), ("below_i64", "-9223372036854775809", "number_range"),
    ("digits_of_1e20", "100000000000000000000", "number_range"), ("nested_above_u64", '{"a":[18446744073709551616]}', "number_range"),
    ("infinite", "1e309", "number_range"), ("minus_infinite", "-1e309", "number_range"), ("infinite_rounding", "1.7976931348623159e308", "number_range"),
    ("infinite_fraction", "1" + "0" * 400 + ".0", "number_range"), ("huge_digits", "9" * 400, "number_range"), ("exponent_huge", "1e99999999999", "number_range"),
    ("nan", "NaN", "syntax"), ("infinity_word", "Infinity", "syntax"), ("minus_infinity_word", "-Infinity", "syntax"),
    ("duplicate", '{"a":1,"a":1}', "duplicate_key"), ("duplicate_escaped", r'{"a":1,"\u0061":2}', "duplicate_key"), ("duplicate_nested", '[{"b":{"":1,"":2}}]', "duplicate_key"),
    ("duplicate_surrogate", '{"\U0001f600":1,"\\ud83d\\ude00":2}', "duplicate_key"),
    ("lone_high", r'"\ud800"', "lone_surrogate"), ("lone_low", r'"\uDC00"', "lone_surrogate"), ("two_high", r'"\ud83d\ud83d"', "lone_surrogate"), ("reversed_pair", r'"\ude00\ud83d"', "lone_surrogate"),
    ("high_then_letter", r'"\ud83dA"', "lone_surrogate"), ("high_then_escape", r'"\ud83d\n"', "lone_surrogate"), ("lone_in_key", r'{"\udfff":1}', "lone_surrogate"),
    ("empty_text", "", "syntax"), ("white_space_only", " \n", "syntax"), ("trailing_comma_array", "[1,]", "syntax"), ("trailing_comma_object", '{"a":1,}', "syntax"), ("leading_zero", "01", "syntax"),
    ("plus", "+1", "syntax"), ("no_integer_part", ".5", "syntax"), ("no_fraction_digits", "1.", "syntax"), ("no_exponent_digits", "1e", "syntax"), ("hexadecimal", "0x10", "syntax"),
    ("minus_alone", "-", "syntax"), ("two_values", "1 2", "syntax"), ("trailing_garbage", "{}x", "syntax"), ("unterminated_string", '"abc', "syntax"), ("unterminated_array", "[1", "syntax"),
    ("raw_newline", '"a\nb"', "syntax"), ("raw_nul", '"a\x00b"', "syntax"), ("bad_escape", r'"\x41"', "syntax"), ("short_unicode_escape", r'"\u12"', "syntax"), ("signed_unicode_escape", r'"\u+123"', "syntax"),
    ("single_quotes", "'a'", "syntax"), ("bare_key", "{a:1}", "syntax"), ("number_key", "{1:1}", "syntax"), ("missing_colon", '{"a" 1}', "syntax"), ("missing_value", '{"a":}', "syntax"), ("comment", "[1/**/]", "syntax"),
    ("capital_true", "True", "syntax"), ("word_tail", "nullx", "syntax"), ("bom", "\ufeff1", "syntax"), ("no_break_space", "\u00a01", "syntax"), ("vertical_tab", "\x0b1", "syntax"),
    ("depth_33_arrays", "[" * 33 + "]" * 33, "depth"), ("depth_33_objects", '{"a":' * 32 + "{}" + "}" * 32, "depth"), ("depth_33_mixed", '[{"a":' * 16 + "[]" + "}]" * 16, "depth"),
    ("depth_1000", "[" * 1000 + "]" * 1000, "depth"),
    ("reserved", '{"$argus.redacted":"key"}', "reserved_key"), ("reserved_other", '{"a":[{"$argus.x":1}]}', "reserved_key"), ("reserved_bare_prefix", '{"$argus.":1}', "reserved_key"),
    ("reserved_escaped", r'{"\u0024argus.redacted":1}', "reserved_key"),
]


def refused():
    for name, raw, reason in REFUSED:
        try:
            av.parse_json(raw, from_caller=True)
        except av.JsonError as e:
            assert e.reason == reason, (name, e.reason)
        else:
            raise AssertionError("%s is accepted" % name)
    return [{"name": n, "raw": r, "reason": why} for n, r, why in REFUSED]


ORDER = list(av.FIELDS)


def line(f):
    """One JSONL line, members in the order of section 1."""
    return "{" + ",".join(av.quote(k) + ":" + av.canonical(f[k]) for k in ORDER if k in f) + "}"


def chain():
    """The records of chain.jsonl, as dicts with prev_hash and checksum."""
    out = []

    def add(writer, n, event, context, component="argus", level="INFO", **more):
        i = len(out) + 1
        f = base(i, writer=writer, writer_seq=n, event=event, component=component, level=level, context=context, prev_hash=out[-1]["checksum"] if out else None,
                 timestamp="2024-05-17T08:00:%02d.%09dZ" % (i, i * 1000003), created_at="2024-05-17 08:00:%02d" % (i // 2), **more)
        if writer != ALPHA:
            f["process_id"] = 7
        f["checksum"] = av.leaf_hash(av.record_canonical(f))
        out.append(f)

    def opening(name):
        return {"service_name": name, "service_version": "1.2.3", "service_instance": "i-1", "host": "h", "user": "u", "executable": "/usr/bin/served",
                "queue": "memory", "location": "/var/log/audit.jsonl", "location_reason": "configured", "argus_version": "0.1.0"}

    add(LOG, 1, "audit_segment", {"canonical": 1, "log_id": LOG, "segment": 1, "writers": {}})
    add(ALPHA, 1, "audit_open", opening("alpha"))
    add(ALPHA, 2, "config_changed", {"z": 1.5, "a": {"\ufb33": 1, "\U0001f600": 2}}, "config", "WARN", old_value={"limit": 1e21, "password": {"$argus.redacted": "key"}}, new_value=9007199254740993,
        file_path="/etc/served.toml", actor_id="u-17", actor_type="user", action="update", outcome="success")
    add(ALPHA, 3, "user_login", {"ip": "192.0.2.7"}, "auth", "SECURITY", user_agent="curl/8", outcome="failure", trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331")
    add(BETA, 1, "audit_open", opening("beta"))
    add(ALPHA, 6, "audit_gap", {"reason": "write_failed", "writer": ALPHA, "first": 4, "last": 5}, level="SECURITY")
    add(BETA, 2, "disk_full", {}, "disk", "CRITICAL", stack="main\n  at \u2028 \"x\"\\y")
    add(ALPHA, 7, "note", {"text": "tab\t nul\0 /\x7f"}, "", new_value="")
    add(LOG, 2, "audit_recovered", {"cause": "torn_line", "bytes": 57, "sha256": hashlib.sha256(b"torn").hexdigest()}, level="SECURITY")
    add(ALPHA, 8, "job_done", {"n": [0.1, -5, None, True]}, "jobs", actor_type="system", outcome="abandoned")
    add(ALPHA, 9, "audit_close", {"submitted": 9, "committed": 7, "rejected": 0, "lost": 2, "filtered": 0})
    add(BETA, 3, "user_logout", {}, "auth", actor_type="service")
    return out


def files():
    def dump(rows):
        return "".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) + "\n" for r in rows)

    recs, no = records(), refused()
    for rows in (recs, no):
        names = [r["name"] for r in rows]
        assert len(set(names)) == len(names), "a name twice"
    return {"records.jsonl": dump(recs), "refused.jsonl": dump(no), "chain.jsonl": "".join(line(f) + "\n" for f in chain())}


def main(argv=None):
    p = argparse.ArgumentParser(description="Write or check the test vectors.")
    p.add_argument("--check", action="store_true")
    args = p.parse_args(argv)
    different = False
    for name, text in files().items():
        path, data = os.path.join(HERE, name), text.encode("utf-8")
        if args.check:
            try:
                with open(path, "rb") as f:
                    same = f.read() == data
            except FileNotFoundError:
                same = False
            print("%s: %s" % (name, "same" if same else "DIFFERENT"))
            different |= not same
        else:
            os.makedirs(HERE, exist_ok=True)
            with open(path, "wb") as f:
                f.write(data)
            print("%s: %d lines" % (name, data.count(b"\n")))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
