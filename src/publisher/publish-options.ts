import type { Priority } from '../engine.ts'
import { checkText, encodeHeaders } from '../message/attributes.ts'
import { type Duration, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, oneOf, timeMs } from '../message/options.ts'

/** What can be said about one message beside its payload. */
export interface PublishOptions {
  /**
   * The message's id, of your own choice, up to 1,024 characters. Within the topic's `deduplicateFor` it is stored
   * once; a later call resolves with `duplicate: true`. Default: a fresh UUIDv7, which is never compared with others.
   */
  readonly id?: string
  /**
   * Messages with equal keys share a partition and keep their order in the log; handlers run side by side, unless the
   * subscription is `ordered`. Default: what the definition's `key` function says.
   */
  readonly key?: string
  /** Deliver no sooner than this long from now. */
  readonly delay?: Duration
  /** Deliver no sooner than this. Not together with `delay`. */
  readonly deliverAt?: Date
  /** A message not delivered this long from now becomes a dead letter. Default: it never expires. */
  readonly expiresIn?: Duration
  /**
   * Default `normal`. While messages of all three priorities wait, subscriptions are handed about 16 of `high`, 4 of
   * `normal` and 1 of `low` in turn, so that none of them starves; what one has no use for goes to the others.
   * Messages of different priorities overtake each other, also those of one key: give all of a key the same.
   */
  readonly priority?: Priority
  /** CloudEvents extension attributes: names of lower-case letters and digits, values of text. */
  readonly headers?: Readonly<Record<string, string>>
  /**
   * The database connection on which your own transaction is open: the message is stored if that commits. With
   * `sqlite:` a `DatabaseSync` of `node:sqlite`, on the same file. With `postgres:` a client of `pg`, or a transaction
   * of Drizzle, Kysely, Prisma, Knex or TypeORM, on the same database. Other engines do not have it.
   */
  readonly tx?: unknown
}

/** The same for many messages at once: they have ids of their own, and no transaction. */
export type BulkOptions = Omit<PublishOptions, 'id' | 'tx'>

/** The same for one of several messages that are published together, whose transaction is that of the call. */
export type MessageOptions = Omit<PublishOptions, 'tx'>

/** Options, checked, with all times resolved. */
export interface Directions {
  readonly id: string | undefined
  readonly key: string | undefined
  readonly deliverAtMs: number | undefined
  /** Undefined: normal. */
  readonly priority: 'high' | 'low' | undefined
  /** Extension attributes as JSON members, each with a comma before it. */
  readonly extensions: string
}

export const noDirections: Directions = {
  id: undefined,
  key: undefined,
  deliverAtMs: undefined,
  priority: undefined,
  extensions: '',
}

const bulkOptionNames = new Set(['key', 'delay', 'deliverAt', 'expiresIn', 'priority', 'headers'])
const messageOptionNames = new Set(['id', ...bulkOptionNames])
const optionNames = new Set([...messageOptionNames, 'tx'])

/** Throws POSTHORN_INVALID_OPTION. */
export function readPublishOptions(options: PublishOptions, nowMs: number): Directions {
  checkOptionNames('publish options', options, optionNames)
  return readChecked(options, nowMs)
}

/** As `readPublishOptions`, for what is said about all messages of a bulk or, with `each`, about one of them. */
export function readBulkOptions(options: PublishOptions, nowMs: number, each: boolean): Directions {
  checkOptionNames('publishAll options', options, each ? messageOptionNames : bulkOptionNames)
  return readChecked(options, nowMs)
}

/** As `readPublishOptions`, for what was given to `message()`. */
export function readMessageOptions(options: MessageOptions, nowMs: number): Directions {
  checkOptionNames('message options', options, messageOptionNames)
  return readChecked(options, nowMs)
}

function readChecked(options: PublishOptions, nowMs: number): Directions {
  if (options.id !== undefined) checkText('id', options.id)
  const deliverAtMs = readDeliveryTime(options, nowMs)
  return {
    id: options.id,
    key: options.key,
    deliverAtMs,
    priority: options.priority === undefined ? undefined : readPriority(options.priority),
    extensions: encodeExpiry(options, nowMs, deliverAtMs) + encodeOptionalHeaders(options),
  }
}

/** Undefined when the message may be delivered at once. */
function readDeliveryTime({ delay, deliverAt }: PublishOptions, nowMs: number): number | undefined {
  if (delay !== undefined && deliverAt !== undefined) {
    throw invalidOption('deliverAt', 'delay is given as well; expected one of the two')
  }
  let dueMs = nowMs
  if (delay !== undefined) dueMs = nowMs + parseDuration(delay, 'delay')
  if (deliverAt !== undefined) dueMs = timeMs('deliverAt', deliverAt)
  return dueMs > nowMs ? dueMs : undefined
}

function readPriority(given: Priority): 'high' | 'low' | undefined {
  const priority = oneOf('priority', given, ['high', 'normal', 'low'])
  return priority === 'normal' ? undefined : priority
}

function encodeExpiry({ expiresIn }: PublishOptions, nowMs: number, deliverAtMs = nowMs): string {
  if (expiresIn === undefined) return ''
  const expiresAtMs = nowMs + parseDuration(expiresIn, 'expiresIn', 1)
  if (expiresAtMs <= deliverAtMs) {
    throw invalidOption('expiresIn', 'the message would expire before it may be delivered; expected a later expiry')
  }
  return `,"expirytime":"${new Date(expiresAtMs).toISOString()}"`
}

function encodeOptionalHeaders({ headers }: PublishOptions): string {
  return headers === undefined ? '' : encodeHeaders(headers)
}
