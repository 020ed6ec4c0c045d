// Schemas as Zod writes them, for `tests/vectors/schemas.jsonl`.
//
//     npm install zod@4 zod3@npm:zod@3 zod-to-json-schema
//     node schemas_of_zod.mjs > zod.jsonl
//
// One line for each type: its schema, a value that it takes and one that must not come out. Zod 4
// writes schemas itself, for Zod 3 the package zod-to-json-schema does. The other half of the file
// comes from `schemas_of_pydantic.py`.

import { readFileSync } from "node:fs";
import * as z from "zod";
import { z as z3 } from "zod3";
import { zodToJsonSchema } from "zod-to-json-schema";

const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

// What both can write, `z` being one of them.
const both = (z) => {
  const Address = z.object({ street: z.string(), zip: z.string().regex(/^\d{5}$/) });
  const Person = z.object({
    name: z.string().min(1).max(50),
    age: z.number().int().min(0).max(150),
    address: Address,
    email: z.string().nullable(),
  });
  const person = { name: "Ann", age: 30, address: { street: "x", zip: "12345" }, email: null };
  const Cat = z.object({ kind: z.literal("cat"), lives: z.number() });
  const Dog = z.object({ kind: z.literal("dog"), good: z.boolean() });
  const cat = { kind: "cat", lives: 9 };
  const Tree = z.object({ value: z.string(), children: z.lazy(() => z.array(Tree)) });
  const uuid = "123e4567-e89b-42d3-a456-426614174000";
  return {
    person: [Person, person, { ...person, age: 151 }],
    optional: [z.object({ a: z.string(), b: z.number().optional() }), { a: "x", b: 1.5 }, { b: 1 }],
    strict: [z.object({ a: z.string() }).strict(), { a: "x" }, { a: "x", b: 1 }],
    loose: [z.object({ a: z.string() }).passthrough(), { a: "x", b: 1 }, { b: 1 }],
    catchall: [z.object({ a: z.string() }).catchall(z.number()), { a: "x", b: 1 }, { a: "x", b: "y" }],
    partial: [Person.partial(), { age: 3 }, { age: -1 }],
    pick: [Person.pick({ name: true }), { name: "x" }, { name: "" }],
    extend: [Cat.extend({ owner: Person }), { ...cat, owner: person }, cat],
    strings: [
      z.object({ a: z.string().min(2), b: z.string().max(3), c: z.string().length(2) }),
      { a: "xy", b: "", c: "ab" },
      { a: "x", b: "", c: "ab" },
    ],
    affixes: [
      z.object({ a: z.string().startsWith("ab"), b: z.string().endsWith("yz"), c: z.string().includes("m.n") }),
      { a: "abc", b: "xyz", c: "_m.n_" },
      { a: "bc", b: "xyz", c: "m.n" },
    ],
    bothAffixes: [z.string().startsWith("a").endsWith("z"), "abcz", "bz"],
    password: [z.string().min(8).regex(/^(?=.*[A-Z])(?=.*\d).+$/), "Abcdefg1", "abcdefg1"],
    notBlank: [z.string().regex(/^(?!\s*$).+/), " x", "  "],
    notBehind: [z.string().regex(/(?<!x)y$/), "y", 1],
    brackets: [z.string().regex(/^[^<>()[\]&~-]+$/), "abc", "a[b"],
    regex: [z.string().regex(/^[A-Z]{2}-\d{3}$/), "AB-123", "AB-12"],
    caseless: [z.string().regex(/^abc$/i), "abc", "x"],
    email: [z.string().email(), "ann@example.org", "ann"],
    url: [z.string().url(), "https://example.org/a", "x"],
    uuid: [z.string().uuid(), uuid, "x"],
    datetime: [z.string().datetime(), "2024-05-06T07:08:09Z", "now"],
    date: [z.string().date(), "2024-05-06", "2024-13-06"],
    time: [z.string().time(), undefined, "25:00:00"],
    duration: [z.string().duration(), "P1DT2H", "x"],
    base64: [z.string().base64(), "eA==", 1],
    nanoid: [z.string().nanoid(), "V1StGXR8_Z5jdHi6B-myT", "x"],
    cuid: [z.string().cuid(), "cjld2cjxh0000qzrmn831i7rn", "x y"],
    cuid2: [z.string().cuid2(), "tz4a98xxat96iws9zmbrgj3a", "X Y"],
    ulid: [z.string().ulid(), "01ARZ3NDEKTSV4RRFFQ69G5FAV", "x"],
    trimmed: [z.string().trim().toLowerCase(), "x", 1],
    integer: [z.number().int(), 5, 1.5],
    positive: [z.number().positive(), 0.5, 0],
    negative: [z.number().int().negative(), -1, 0],
    bounded: [z.number().gte(-1.5).lte(2.5), 2.5, 2.6],
    step: [z.number().multipleOf(5), 15, 7],
    choices: [z.enum(["red", "green"]), "red", "blue"],
    nativeEnum: [z.nativeEnum({ Low: 1, High: 2, 1: "Low", 2: "High" }), 2, 3],
    literals: [z.union([z.literal("a"), z.literal(1), z.literal(true), z.null()]), 1, "b"],
    nullable: [z.string().nullable(), null, 1],
    nullish: [z.object({ a: z.string().nullish() }), { a: null }, { a: 1 }],
    defaults: [z.object({ a: z.string().default("x"), b: z.array(z.number()).default([]) }), { a: "y", b: [1] }, { a: 1 }],
    described: [z.object({ a: z.string().describe("A word") }).describe("It"), { a: "x" }, { a: 1 }],
    readonly: [z.object({ a: z.string() }).readonly(), { a: "x" }, {}],
    branded: [z.object({ id: z.string().brand("Id") }), { id: "x" }, {}],
    union: [z.union([z.string(), z.number(), z.array(z.boolean())]), [true], null],
    unionOfObjects: [z.union([Cat, Person]), cat, { kind: "fish" }],
    discriminated: [z.discriminatedUnion("kind", [Cat, Dog]), cat, { kind: "fish" }],
    manyPets: [z.array(z.discriminatedUnion("kind", [Cat, Dog])), [cat, { kind: "dog", good: true }], [{ kind: "dog" }]],
    intersection: [
      z.intersection(z.object({ a: z.string() }), z.object({ b: z.number() })),
      { a: "x", b: 1 },
      { a: "x" },
    ],
    array: [z.array(z.string()).min(1).max(3), ["x"], []],
    nonempty: [z.array(z.number()).nonempty(), [1], []],
    tuple: [z.tuple([z.string(), z.number()]), ["x", 1], ["x"]],
    tupleRest: [z.tuple([z.string()]).rest(z.number()), ["x", 1, 2], ["x", "y"]],
    record: [z.record(z.string(), z.number()), { a: 1 }, { a: "x" }],
    nestedRecord: [z.record(z.string(), z.record(z.string(), z.array(Cat))), { a: { b: [cat] } }, { a: 1 }],
    enumRecord: [z.record(z.enum(["a", "b"]), z.number()), { a: 1, b: 2 }, { c: 1 }],
    patternRecord: [z.record(z.string().regex(/^[a-z]{2}$/), z.boolean()), { ab: true }, { abc: true }],
    shortRecord: [z.record(z.string().min(1).max(3), z.number()), { abc: 1 }, { abcd: 1 }],
    uuidRecord: [z.record(z.string().uuid(), z.string()), { [uuid]: "x" }, { x: "x" }],
    map: [z.object({ any: z.any(), unknown: z.unknown() }), { any: 1, unknown: null }, 1],
    recursive: [Tree, { value: "a", children: [{ value: "b", children: [] }] }, { value: "a", children: [1] }],
    shared: [z.object({ from: Address, to: Address }), { from: person.address, to: person.address }, { from: person.address }],
    empty: [z.object({}), {}, 1],
    boolean: [z.boolean(), true, "x"],
    steps: [
      z.object({ steps: z.array(z.object({ explanation: z.string(), output: z.string() })), final: z.string() }),
      { steps: [{ explanation: "x", output: "y" }], final: "z" },
      { steps: [{}], final: "z" },
    ],
  };
};

const uuid = "123e4567-e89b-42d3-a456-426614174000";
const Category = z.object({ name: z.string(), get subcategories() { return z.array(Category); } });
const Named = z.object({ id: z.int() }).meta({ id: "Named/Ünit~1", title: "Named" });
const only4 = {
  int: [z.int(), -9007199254740991, 9007199254740992],
  int32: [z.int32(), 2147483647, 2147483648],
  uint32: [z.uint32(), 0, -1],
  float32: [z.float32(), 1.5, "x"],
  float64: [z.float64(), -1e15, "x"],
  email4: [z.email(), "ann@example.org", "ann"],
  html5Email: [z.email({ pattern: z.regexes.html5Email }), "ann@example.org", "ann"],
  unicodeEmail: [z.email({ pattern: z.regexes.unicodeEmail }), "ann@example.org", "x"],
  uuid4: [z.uuidv4(), uuid, "x"],
  guid: [z.guid(), uuid, "x"],
  ipv4: [z.ipv4(), "127.0.0.1", "256.1.1.1"],
  ipv6: [z.ipv6(), "::1", "x"],
  cidrv4: [z.cidrv4(), "10.0.0.0/8", "10.0.0.0"],
  cidrv6: [z.cidrv6(), "::1/64", "x"],
  hostname: [z.hostname(), "example.org", "a b"],
  e164: [z.e164(), "+4912345678", "1"],
  base64url: [z.base64url(), "eA", "x y"],
  jwt: [z.jwt(), "eyJhbGciOiJIUzI1NiJ9.e30.abc", 1],
  emoji: [z.emoji(), "🙂", "x"],
  isoDatetime: [z.iso.datetime({ offset: true, precision: 3 }), "2024-05-06T07:08:09.123+01:00", "x"],
  isoLocal: [z.iso.datetime({ local: true }), "2024-05-06T07:08:09", "x"],
  isoDate: [z.iso.date(), "2024-02-29", "2023-02-29"],
  isoTime: [z.iso.time({ precision: -1 }), "07:08", "7"],
  isoDuration: [z.iso.duration(), "P3Y6M4DT12H30M5S", "P"],
  xid: [z.xid(), "9m4e2mr0ui3e8a215n4g", "x"],
  ksuid: [z.ksuid(), "0ujsszwN8NRY24YaXiTIE2VWDTS", "x"],
  hex: [z.hex(), "00ff", "xyz"],
  httpUrl: [z.httpUrl(), "https://example.org", "x"],
  template: [z.templateLiteral(["v", z.number(), ".", z.enum(["a", "b"])]), "v1.a", "v1.c"],
  literalList: [z.literal(["a", 2, null, true]), 2, "b"],
  partialRecord: [z.partialRecord(z.enum(["a", "b"]), z.number()), { a: 1 }, { c: 1 }],
  numberRecord: [z.record(z.number(), z.string()), { 1: "x" }, { 1: 2 }],
  literalRecord: [z.record(z.literal("only"), z.number()), { only: 1 }, { other: 1 }],
  unionRecord: [z.record(z.union([z.literal("a"), z.literal("b")]), z.number()), { a: 1, b: 2 }, { c: 1 }],
  strictObject: [z.strictObject({ a: z.string() }), { a: "x" }, { a: "x", b: 1 }],
  looseObject: [z.looseObject({ a: z.string() }), { a: "x", b: 1 }, {}],
  recursive4: [Category, { name: "a", subcategories: [{ name: "b", subcategories: [] }] }, { name: "a" }],
  named: [z.object({ one: Named, two: z.array(Named) }), { one: { id: 1 }, two: [{ id: 2 }] }, { one: 1, two: [] }],
  json: [z.json(), { a: [1, null] }, undefined],
  stringbool: [z.object({ a: z.stringbool() }), undefined, undefined, { io: "input" }],
  exactTuple: [z.tuple([z.string(), z.number().optional()]), ["x"], [1]],
  pipe: [z.string().transform(Number), "x", 1, { io: "input" }],
  inputDefaults: [z.object({ a: z.string().default("x") }), {}, { a: 1 }, { io: "input" }],
  openApi: [z.object({ a: z.string().nullable(), n: z.number().gt(0) }), { a: "x", n: 1 }, { a: "x", n: 0 }, { target: "openapi-3.0" }],
  reused: [z.object({ one: Named, two: Named }), { one: { id: 1 }, two: { id: 2 } }, {}, { reused: "ref" }],
  draft7: [z.object({ t: z.tuple([z.string(), z.int()]) }), { t: ["x", 1] }, { t: [1, 1] }, { target: "draft-7" }],
  draft4: [z.number().gt(0).lt(10), 5, 0, { target: "draft-4" }],
  nested: [z.object({ a: z.object({ b: z.object({ c: z.array(z.int().positive()) }) }) }), { a: { b: { c: [1] } } }, { a: { b: { c: [0] } } }],
  never: [z.object({ a: z.string(), b: z.never().optional() }), { a: "x" }, { a: "x", b: 1 }],
  xor: [z.xor([z.object({ a: z.string() }), z.object({ b: z.number() })]), { a: "x" }, { c: 1 }],
};

const only3 = {
  set: [z3.set(z3.string()), ["a", "b"], [1]],
  enumSet: [z3.set(z3.enum(["a", "b"])), ["b"], ["c"]],
  map: [z3.map(z3.string(), z3.number()), [["a", 1]], [["a", "x"]]],
  bigint: [z3.bigint(), 5, 1.5],
  ip: [z3.string().ip(), "127.0.0.1", "x"],
  emoji: [z3.string().emoji(), "🙂", "x"],
  coerced: [z3.coerce.number().int(), 5, 1.5],
  never: [z3.object({ a: z3.string(), b: z3.never().optional() }), { a: "x" }, { a: "x", b: 1 }],
  when: [z3.object({ at: z3.date() }), { at: "2024-05-06T07:08:09Z" }, { at: 1 }],
};

const Comment = z3.object({ text: z3.string(), replies: z3.lazy(() => z3.array(Comment)) });
const comment = { text: "a", replies: [{ text: "b", replies: [] }] };
const withOptions = {
  root: [Comment, comment, { text: "a", replies: [1] }, { name: "Comment" }],
  openAi: [z3.object({ a: z3.string().optional(), r: z3.record(z3.number()) }), undefined, { a: 1 }, { target: "openAi" }],
  openApi3: [z3.object({ a: z3.string().nullable(), n: z3.number().gt(0) }), { a: "x", n: 1 }, { a: "x", n: 0 }, { target: "openApi3" }],
  draft2019: [z3.object({ a: z3.tuple([z3.string()]) }), { a: ["x"] }, { a: [1] }, { target: "jsonSchema2019-09" }],
  definitions: [
    z3.object({ one: Comment, two: z3.array(Comment) }),
    { one: comment, two: [comment] },
    { one: 1, two: [] },
    { name: "Both", definitions: { Comment } },
  ],
};

const print = (name, source, schema, valid, invalid) =>
  console.log(JSON.stringify({ name, source, schema, valid, invalid }));

for (const [name, [type, valid, invalid]] of Object.entries(both(z))) {
  print(name, `zod ${version("zod")}`, z.toJSONSchema(type), valid, invalid);
}
for (const [name, [type, valid, invalid, options]] of Object.entries(only4)) {
  print(name, `zod ${version("zod")}`, z.toJSONSchema(type, options), valid, invalid);
}
const source = `zod-to-json-schema ${version("zod-to-json-schema")}, zod ${version("zod3")}`;
const all3 = [both(z3), only3, withOptions].flatMap(Object.entries);
for (const [name, [type, valid, invalid, options]] of all3) {
  print(name, source, zodToJsonSchema(type, options), valid, invalid);
}
