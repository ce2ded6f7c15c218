type Writable = string | number | boolean | null
type Method = (...parameters: never[]) => unknown
// What a function without a result returns, which is not only undefined to TypeScript.
type Nothing = ReturnType<() => void>
type Unwritable = bigint | symbol | Method
type Emptied = ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> | Promise<unknown>
type IsAny<Value> = 0 extends 1 & Value ? true : false

/**
 * What is left of a value once it has been written as JSON and read again, and frozen: a `Date` is a string, methods
 * are gone, everything is readonly. Plain JSON types stay as they are; what cannot be published is `never`.
 */
export type Serialized<Value> =
  IsAny<Value> extends true
    ? Value
    : unknown extends Value
      ? Value
      : Value extends Writable | Nothing
        ? Value
        : Value extends { toJSON(...parameters: never[]): infer Json }
          ? Serialized<Json>
          : Value extends Unwritable | Emptied
            ? never
            : Value extends readonly unknown[]
              ? { readonly [Index in keyof Value]: SerializedElement<Value[Index]> }
              : Value extends object
                ? {
                    readonly [Name in keyof Value as Value[Name] extends Method ? never : Name]: Serialized<Value[Name]>
                  }
                : never

type SerializedElement<Element> = undefined extends Element
  ? Serialized<Exclude<Element, undefined>> | null
  : Serialized<Element>
