import { checkText, encodeHeaders } from '../message/attributes.ts'
import { type Duration, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, timeMs } from '../message/options.ts'

/** What can be said about one message beside its payload. */
export interface PublishOptions {
  /**
   * The message's id, of your own choice, up to 1,024 characters. Within the topic's `deduplicateFor` it is stored
   * once; a later call resolves with `duplicate: true`. Default: a fresh UUIDv7, which is never compared with others.
   */
  readonly id?: string
  /**
   * Messages with equal keys share a partition and keep their order in the log; handlers run side by side. Default:
   * what the definition's `key` function says.
   */
  readonly key?: string
  /** Deliver no sooner than this long from now. */
  readonly delay?: Duration
  /** Deliver no sooner than this. Not together with `delay`. */
  readonly deliverAt?: Date
  /** A message not delivered this long from now becomes a dead letter. Default: it never expires. */
  readonly expiresIn?: Duration
  /** CloudEvents extension attributes: names of lower-case letters and digits, values of text. */
  readonly headers?: Readonly<Record<string, string>>
  /**
   * The database connection on which your own transaction is open: the message is stored if that commits. With
   * `sqlite:` a `DatabaseSync` of `node:sqlite`, on the same file; other engines do not have it.
   */
  readonly tx?: unknown
}

/** The same for many messages at once: they have ids of their own, and no transaction. */
export type BulkOptions = Omit<PublishOptions, 'id' | 'tx'>

/** Options, checked, with all times resolved. */
export interface Directions {
  readonly id: string | undefined
  readonly key: string | undefined
  readonly deliverAtMs: number | undefined
  /** Extension attributes as JSON members, each with a comma before it. */
  readonly extensions: string
}

export const noDirections: Directions = { id: undefined, key: undefined, deliverAtMs: undefined, extensions: '' }

const optionNames = new Set(['id', 'key', 'delay', 'deliverAt', 'expiresIn', 'headers', 'tx'])
const bulkOptionNames = new Set(['key', 'delay', 'deliverAt', 'expiresIn', 'headers'])
const bulkEachOptionNames = new Set(['id', ...bulkOptionNames])

/** Throws POSTHORN_INVALID_OPTION. */
export function readPublishOptions(options: PublishOptions, nowMs: number): Directions {
  checkOptionNames('publish options', options, optionNames)
  return readChecked(options, nowMs)
}

/** As `readPublishOptions`, for what is said about all messages of a bulk or, with `each`, about one of them. */
export function readBulkOptions(options: PublishOptions, nowMs: number, each: boolean): Directions {
  checkOptionNames('publishAll options', options, each ? bulkEachOptionNames : bulkOptionNames)
  return readChecked(options, nowMs)
}

function readChecked(options: PublishOptions, nowMs: number): Directions {
  if (options.id !== undefined) checkText('id', options.id)
  const deliverAtMs = readDeliveryTime(options, nowMs)
  return {
    id: options.id,
    key: options.key,
    deliverAtMs,
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
