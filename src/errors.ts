/**
 * Every error that a user of Posthorn can meet. Each has a stable code, one sentence that says what happened, one
 * that says what to do, and whether the same call may succeed later. `docs/reference/errors.md` describes each code;
 * a test holds the two together in both directions.
 */

interface ErrorKind {
  /** What happened; `{name}` is filled from the details given where the error is raised. */
  readonly happened: string
  /** What the user can do about it. */
  readonly action: string
  /** Whether the same call can succeed later without being changed. Default `false`. */
  readonly retryable?: true
}

export const errorKinds = {
  POSTHORN_INVALID_OPTION: {
    happened: 'The option {option} is not valid: {problem}.',
    action: 'Correct the option; the reference lists what each one takes.',
  },
  POSTHORN_INVALID_NAME: {
    happened: 'The {kind} name {name} is not valid.',
    action: 'Use 1 to 200 letters, digits, dots, hyphens, underscores, colons or slashes.',
  },
  POSTHORN_UNKNOWN_ENGINE: {
    happened: 'No engine serves a URL with {scheme}.',
    action: 'Begin it with one of {known}.',
  },
  POSTHORN_DRIVER_MISSING: {
    happened: 'The engine of this URL needs the package {driver}, which is not installed.',
    action: 'Install it beside posthorn: npm install {driver}.',
  },
  POSTHORN_UNSUPPORTED_NODE: {
    happened: 'This Node.js brings {found}, and Posthorn needs {needed}.',
    action: 'Upgrade Node.js to a release that has it: 24.15 or newer.',
  },
  POSTHORN_CLOSED: {
    happened: 'The connection is closed, so {operation} was not carried out.',
    action: 'Publish and subscribe before calling close(), or open a new connection.',
  },
  POSTHORN_INVALID_MESSAGE: {
    happened: 'A message for topic {topic} does not fit its schema: {problem}.',
    action: 'Correct the payload, or the schema given to topic(); nothing was published.',
  },
  POSTHORN_STORED_MESSAGE_INVALID: {
    happened: 'A stored message of topic {topic}, written under schema {found}, does not fit {wanted}: {problem}.',
    action: 'Let the newer schema accept what older publishers wrote, then redrive the dead letter.',
  },
  POSTHORN_UNSERIALIZABLE_MESSAGE: {
    happened: 'A message for topic {topic} cannot be written as JSON: {problem}.',
    action: 'Publish plain data: no BigInt, no cycles, no functions, and not undefined.',
  },
  POSTHORN_MESSAGE_TOO_LARGE: {
    happened: 'A message for topic {topic} has {size} bytes, and the limit is {limit}.',
    action: 'Store large content elsewhere and publish its address, or raise maxMessageBytes in connect().',
  },
  POSTHORN_BULK_INTERRUPTED: {
    happened: 'publishAll() into topic {topic} stopped after it had stored {published} messages: {problem}',
    action: 'Mend the cause and publish the rest; messages with ids of your own can safely be published again.',
  },
  POSTHORN_PUBLISH_BUFFER_FULL: {
    happened: 'Messages waiting in this process to be stored hold {bytes} bytes, and the limit is {limit}.',
    action: 'Await publish() so that storage sets the pace, use publishAll(), or raise maxBufferedBytes in connect().',
    retryable: true,
  },
  POSTHORN_BACKLOG_FULL: {
    happened: 'Topic {topic} has a backlog of {backlog} messages, and its limit is {limit}.',
    action: 'Try again once its consumers catch up, add consumers, or raise maxBacklog.',
    retryable: true,
  },
  POSTHORN_TOPIC_NOT_FOUND: {
    happened: 'There is no topic {topic}.',
    action: 'Check the name; a topic comes into being when it is first published or subscribed to.',
  },
  POSTHORN_SUBSCRIPTION_NOT_FOUND: {
    happened: 'Topic {topic} has no subscription {subscription}.',
    action: 'Check the name; admin.subscriptions() lists those that exist.',
  },
  POSTHORN_TOPIC_CONFLICT: {
    happened: 'Topic {topic} exists with another {setting}: {stored}, not {wanted}.',
    action: 'Define the topic alike everywhere, or give the new definition another name.',
  },
  POSTHORN_SUBSCRIPTION_CONFLICT: {
    happened: 'Subscription {subscription} of topic {topic} is open already with another {setting}.',
    action: 'Give the two the same settings, or one of them another name.',
  },
  POSTHORN_QUEUE_SUBSCRIPTION: {
    happened: 'Queue {topic} has one subscription, its own, so {subscription} cannot be added.',
    action: 'Use topic() instead of queue() where several subscriptions need every message.',
  },
  POSTHORN_INVALID_TRANSACTION: {
    happened: 'The tx option cannot be used: {problem}.',
    action: 'Pass the connection on which your own transaction is open and sound, to the same database.',
  },
  POSTHORN_UNSUPPORTED: {
    happened: 'The {engine} engine cannot do this: {feature}.',
    action: 'Use an engine that declares the capability; the page on choosing an engine compares them.',
  },
  POSTHORN_NOT_A_DATABASE: {
    happened: 'The file {file} is not an SQLite database.',
    action: 'Point the URL at a database or at a path that does not exist yet; the file was left as it was.',
  },
  POSTHORN_SCHEMA_TOO_NEW: {
    happened: '{store} was written by a newer Posthorn (schema {found}; this one knows up to {known}).',
    action: 'Upgrade the posthorn package in this process; nothing was changed.',
  },
  POSTHORN_STORAGE_READ_ONLY: {
    happened: 'The store {file} cannot be written.',
    action: 'Give this user write permission on the file and its folder; of a server, connect to the primary.',
  },
  POSTHORN_STORAGE_UNAVAILABLE: {
    happened: '{store} cannot be opened: {problem}.',
    action:
      'Check the path, or the server, the user, the password and the database in the URL, and what this process may use.',
    retryable: true,
  },
  POSTHORN_STORAGE_FULL: {
    happened: 'There is no room left to store messages in {store}.',
    action:
      'Free disk space or raise the size limit; what was acknowledged is safe, and publishing works again once there is room.',
    retryable: true,
  },
  POSTHORN_STORAGE_BUSY: {
    happened: 'Another connection held {store} locked for {waitedMs} ms.',
    action: 'Look for a long write transaction on the same file, end it, and try again.',
    retryable: true,
  },
  POSTHORN_STORE_IN_USE: {
    happened: '{store} is in use by {users}.',
    action: 'Stop every process that uses it, and run the command again.',
    retryable: true,
  },
  POSTHORN_STORE_MOVED: {
    happened: 'What {store} holds was moved to {movedTo}.',
    action: 'Connect to that, or run "posthorn reopen" with the URL of the file to use it all the same.',
  },
  POSTHORN_MOVE_UNFINISHED: {
    happened: '{moved} is being moved into {store}, and not all of it has arrived.',
    action: 'Run the "posthorn migrate" of that move again until it ends with "done", or drop the schema.',
    retryable: true,
  },
  POSTHORN_TARGET_NOT_EMPTY: {
    happened: '{store} cannot be moved into: {problem}.',
    action: 'Move into an empty database or schema; what is in this one was left as it was.',
  },
  POSTHORN_MOVE_INCOMPLETE: {
    happened: 'What arrived in {store} is not what left: {problem}.',
    action: 'Run the command again, which mends it; nothing has become visible to applications.',
    retryable: true,
  },
  POSTHORN_STORAGE_CORRUPT: {
    happened: '{store} is damaged: {problem}.',
    action:
      'Stop the processes that use it, keep a copy, and restore a backup; admin.checkIntegrity() lists the damage.',
  },
  POSTHORN_STORAGE_FAILED: {
    happened: '{store} failed: {problem}.',
    action: 'See the cause; if it names nothing that you can mend, please report it.',
    retryable: true,
  },
  POSTHORN_STORAGE_REPLACED: {
    happened: '{store} was removed or replaced while it was in use, so nothing that is written now would be kept.',
    action: 'Put the right files in place and restart the processes that use them; publish again what was rejected.',
  },
  POSTHORN_OUTCOME_UNKNOWN: {
    happened: '{store} did not confirm the write, so it is unknown whether it was stored: {problem}.',
    action: 'Publish again under the same id, so that it is stored once; under a new id it may be stored twice.',
    retryable: true,
  },
  POSTHORN_BATCH_CORRUPT: {
    happened: 'Messages {from} to {to} of topic {topic}, partition {partition}, are damaged and were passed over.',
    action: 'Restore them from a backup; every other message is delivered as usual.',
  },
  POSTHORN_LEASE_LOST: {
    happened: 'The lease on messages of subscription {subscription} was lost: {reason}.',
    action: 'Let the handler stop when its signal aborts; another consumer delivers the messages again.',
  },
  POSTHORN_HANDLER_TIMEOUT: {
    happened: 'The handler of subscription {subscription} outran its timeout of {timeoutMs} ms.',
    action: 'Pass the signal on to what the handler awaits, make the work smaller, or raise the timeout.',
  },
  POSTHORN_EVENT_LOOP_BLOCKED: {
    happened: 'The event loop was blocked for {blockedMs} ms while these handlers ran: {handlers}.',
    action: 'Move the long computation to a worker thread, or break it up; until then leases may be lost.',
  },
  POSTHORN_MESSAGE_EXPIRED: {
    happened: 'The message was not delivered before its expiry, {expiry}.',
    action: 'Add consumers, or give messages a longer expiresIn.',
  },
  POSTHORN_CANCELLED: {
    happened: 'Message {id} of subscription {subscription} was cancelled while its handler ran.',
    action: 'Let the handler stop when its signal aborts; the message is not delivered again.',
  },
  POSTHORN_STEP_TIMEOUT: {
    happened: 'Step {step} of subscription {subscription} outran its timeout of {timeoutMs} ms.',
    action: 'Pass the signal on to what the step awaits, make it smaller, or raise its timeout.',
  },
  POSTHORN_STEP_CONFLICT: {
    happened: 'Step {step} was begun twice in one handler call of subscription {subscription}.',
    action: 'Give each step of a handler a name of its own; in a loop, add what tells the rounds apart.',
  },
  POSTHORN_UNSERIALIZABLE_STEP: {
    happened: 'Step {step} of subscription {subscription} has run, but its result cannot be kept as JSON: {problem}.',
    action: 'Return plain data from the step, or nothing, and redrive the dead letter; until then it is not run again.',
  },
  POSTHORN_CRASHED_REPEATEDLY: {
    happened: 'The process died {crashes} times while it handled this message.',
    action: 'Find out what the message makes the handler do, mend it, and redrive the dead letter.',
  },
} as const satisfies Record<string, ErrorKind>

export type ErrorCode = keyof typeof errorKinds

type ErrorDetails = Readonly<Record<string, string | number>>

/** An error with a stable `code`; `message` says what happened and `action` says what to do about it. */
export class PosthornError extends Error {
  override readonly name = 'PosthornError'
  readonly code: ErrorCode
  /** One sentence that says what to do. */
  readonly action: string
  /** Whether the same call can succeed later without being changed. */
  readonly retryable: boolean
  /** The values that stand in the message, for programs to read. */
  readonly details: ErrorDetails

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: { cause?: unknown }) {
    const kind: ErrorKind = errorKinds[code]
    super(`${fill(kind.happened, details)} ${fill(kind.action, details)}`, options)
    this.code = code
    this.action = fill(kind.action, details)
    this.retryable = kind.retryable ?? false
    this.details = details
  }
}

function fill(sentence: string, details: ErrorDetails): string {
  return sentence.replaceAll(/\{(\w+)\}/g, (placeholder, name: string) => String(details[name] ?? placeholder))
}
