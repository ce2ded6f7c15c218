import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Retention, TopicConfig } from '../engine.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { schemaUri } from '../message/encode.ts'
import { checkName } from '../message/names.ts'
import { checkOptionNames, invalidOption, oneOf, wholeNumber } from '../message/options.ts'

/** How a topic or queue keeps its messages, and what it lets in. */
export interface TopicOptions<Payload> {
  /**
   * The key of a message, from its validated payload: 1 to 1,024 characters. Messages with equal keys share a
   * partition and keep their order in the log; handlers run side by side, so that one may overtake another, unless the
   * subscription is `ordered`. `undefined` means none. Default: no message has a key.
   */
  readonly key?: (payload: Payload) => string | undefined
  /**
   * The schema's version, default 1; change it with every change of the schema. A stored message of another version is
   * validated once more when it is delivered, and becomes a dead letter (`invalid`) if it does not fit.
   */
  readonly version?: number | string
  /** What may be deleted of what every subscription has settled. */
  readonly retention?: RetentionOptions
  /**
   * The backlog of the slowest subscription, in messages, from which on the topic is full. What is stored
   * together is let in or refused as a whole, so that up to 1,000 messages (10,000 that were published as all or
   * none) may come on top, and delayed ones enter when they are due. Default: no limit.
   */
  readonly maxBacklog?: number
  /**
   * What publishing into a full topic does: `reject` (the default) with POSTHORN_BACKLOG_FULL, or `wait` until there
   * is room or the connection is closed.
   */
  readonly whenFull?: 'reject' | 'wait'
  /** How long an id given to `publish` is remembered. Default `'1h'`; 0 forgets it at once. */
  readonly deduplicateFor?: Duration
  /**
   * Into how many partitions the log is split, 1 to 1,024. It cannot change later. Default 8 with a `key`, else 1: an
   * `ordered` subscription gives each partition to one process at a time, so that they are the most processes which can
   * share its work; without keys there is nothing that would have to stay together.
   */
  readonly partitions?: number
  /** The largest message, in bytes of JSON with its attributes. Default: the connection's `maxMessageBytes`. */
  readonly maxMessageBytes?: number
}

export interface RetentionOptions {
  /** Messages this old may go. Default `'7d'` for topics, 0 for queues. */
  readonly maxAge?: Duration
  /** The oldest messages go as long as the topic is larger than this. Default: no limit. */
  readonly maxBytes?: number
  /** Delete beyond these limits even what a subscription has not had yet. Default `false`. */
  readonly dropUnread?: boolean
}

/**
 * A topic or queue as the program knows it: made by `topic()` or `queue()`, never changed, and shared by whoever
 * publishes and subscribes. `Input` is what `publish` takes, `Output` what the schema makes of it and what is stored.
 */
export interface Definition<Input, Output> {
  readonly kind: 'topic' | 'queue'
  readonly name: string
  readonly version: number | string
  readonly schema: StandardSchemaV1<Input, Output> | undefined
  /** The URI stored with every message of this version; `undefined` without schema and version. */
  readonly dataschema: string | undefined
  readonly config: TopicConfig
  readonly whenFull: 'reject' | 'wait'
  readonly maxMessageBytes: number | undefined
  key(payload: Output): string | undefined
}

export interface TopicDefinition<Input, Output> extends Definition<Input, Output> {
  readonly kind: 'topic'
}

export interface QueueDefinition<Input, Output> extends Definition<Input, Output> {
  readonly kind: 'queue'
}

const KEYED_PARTITIONS = 8

const optionNames = new Set([
  'schema',
  'key',
  'version',
  'retention',
  'maxBacklog',
  'whenFull',
  'deduplicateFor',
  'partitions',
  'maxMessageBytes',
])
const retentionNames = new Set(['maxAge', 'maxBytes', 'dropUnread'])

/**
 * Defines a topic: a durable log of which every subscription gets every message. With a `schema` (any Standard
 * Schema) payloads are validated when they are published and typed from it; without one, say the type yourself:
 * `topic<UserSignedUp>('user.signed_up')`.
 *
 * Throws POSTHORN_INVALID_NAME and POSTHORN_INVALID_OPTION. Nothing is stored until the topic is first used.
 */
export function topic<Schema extends StandardSchemaV1>(
  name: string,
  options: TopicOptions<StandardSchemaV1.InferOutput<Schema>> & { readonly schema: Schema },
): TopicDefinition<StandardSchemaV1.InferInput<Schema>, StandardSchemaV1.InferOutput<Schema>>
export function topic<Payload = unknown>(
  name: string,
  options?: TopicOptions<Payload>,
): TopicDefinition<Payload, Payload>
export function topic(name: string, options: UncheckedOptions = {}): TopicDefinition<unknown, unknown> {
  return Object.freeze({ kind: 'topic', ...define('topic', name, options) })
}

/**
 * Defines a queue: a topic with one subscription, named like itself, whose messages are deleted once they are
 * settled. Types, options and errors are those of `topic()`.
 */
export function queue<Schema extends StandardSchemaV1>(
  name: string,
  options: TopicOptions<StandardSchemaV1.InferOutput<Schema>> & { readonly schema: Schema },
): QueueDefinition<StandardSchemaV1.InferInput<Schema>, StandardSchemaV1.InferOutput<Schema>>
export function queue<Payload = unknown>(
  name: string,
  options?: TopicOptions<Payload>,
): QueueDefinition<Payload, Payload>
export function queue(name: string, options: UncheckedOptions = {}): QueueDefinition<unknown, unknown> {
  return Object.freeze({ kind: 'queue', ...define('queue', name, options) })
}

/** Throws POSTHORN_INVALID_OPTION for what `topic()` or `queue()` did not make. */
export function checkDefinition(value: unknown): asserts value is Definition<unknown, unknown> {
  if (typeof value === 'object' && value !== null && 'config' in value && 'kind' in value) return
  throw invalidOption('definition', `it is ${describe(value)}; expected what topic() or queue() returned`)
}

interface UncheckedOptions extends TopicOptions<never> {
  readonly schema?: StandardSchemaV1
}

function define(
  kind: 'topic' | 'queue',
  name: string,
  options: UncheckedOptions,
): Omit<Definition<unknown, unknown>, 'kind'> {
  checkName(kind, name)
  checkOptionNames(`${kind} options`, options, optionNames)
  const { schema, version = 1, whenFull = 'reject', maxMessageBytes } = options
  if (schema !== undefined) checkSchema(schema)
  checkVersion(version)
  const versioned = schema !== undefined || options.version !== undefined
  return {
    name,
    version,
    schema,
    dataschema: versioned ? schemaUri(name, version) : undefined,
    config: readConfig(kind, name, options),
    whenFull: oneOf('whenFull', whenFull, ['reject', 'wait']),
    maxMessageBytes:
      maxMessageBytes === undefined ? undefined : wholeNumber('maxMessageBytes', maxMessageBytes, { min: 1 }),
    key: readKey(options.key),
  }
}

function readConfig(kind: 'topic' | 'queue', name: string, options: UncheckedOptions): TopicConfig {
  const { deduplicateFor = '1h', partitions = partitionsPreset(options), maxBacklog, retention = {} } = options
  return Object.freeze({
    topic: name,
    kind,
    partitions: wholeNumber('partitions', partitions, { min: 1, max: 1_024 }),
    deduplicationWindowMs: parseDuration(deduplicateFor, 'deduplicateFor'),
    retention: readRetention(retention, kind === 'queue' ? 0 : '7d'),
    ...(maxBacklog !== undefined && { maxBacklog: wholeNumber('maxBacklog', maxBacklog, { min: 1 }) }),
  })
}

function partitionsPreset({ key }: UncheckedOptions): number {
  return key === undefined ? 1 : KEYED_PARTITIONS
}

function readRetention(retention: RetentionOptions, presetMaxAge: Duration): Retention {
  checkOptionNames('retention', retention, retentionNames)
  const { maxAge = presetMaxAge, maxBytes, dropUnread = false } = retention
  if (typeof dropUnread !== 'boolean') {
    throw invalidOption('retention.dropUnread', `it is ${describe(dropUnread)}; expected true or false`)
  }
  return Object.freeze({
    maxAgeMs: parseDuration(maxAge, 'retention.maxAge'),
    ...(maxBytes !== undefined && { maxBytes: wholeNumber('retention.maxBytes', maxBytes, { min: 1 }) }),
    dropUnread,
  })
}

// Schemas may be functions with properties (ArkType's are), so only the property counts.
function checkSchema(schema: StandardSchemaV1): void {
  if (typeof schema?.['~standard']?.validate === 'function') return
  throw invalidOption(
    'schema',
    `it is ${describe(schema)}; expected a Standard Schema, such as one of zod, valibot or ArkType`,
  )
}

function checkVersion(version: unknown): void {
  const valid =
    typeof version === 'string' ? version.length > 0 && version.length <= 100 : Number.isSafeInteger(version)
  if (!valid)
    throw invalidOption('version', `it is ${describe(version)}; expected a whole number, or 1 to 100 characters`)
}

function readKey(key: unknown): (payload: unknown) => string | undefined {
  if (key === undefined) return noKey
  if (typeof key === 'function') return key as (payload: unknown) => string | undefined
  throw invalidOption('key', `it is ${describe(key)}; expected a function of the payload`)
}

function noKey(): undefined {
  return undefined
}
