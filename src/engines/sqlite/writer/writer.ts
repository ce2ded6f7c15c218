/**
 * The one place that writes to the file for this process, in a thread of its own.
 *
 * It works in turns. A turn takes every command that has arrived, carries them all out in one transaction (group
 * commit: what arrives while a commit is under way forms the next), leases messages to the pulls that wait, commits,
 * and only then answers; publishers also wait until the log is on stable storage. See group-commit.ts for what happens
 * when the transaction fails.
 *
 * Between turns it sleeps until a command arrives, another process says that it committed (see wake.ts), or an alarm
 * goes off: a retry or delayed message falls due, a session runs out, or the safety net looks whether the file changed.
 *
 * A failure of the file does not end the thread: calls and pulls are told, and the next turn tries again. The exceptions
 * are a disk that fails to sync, for nobody can tell then what it holds, and a file that was removed or replaced. Then
 * the thread gives back what it can, says why in its last turn, and ends; the host starts another. Leases that were
 * committed but whose messages could not be read are *stranded*: they are given back in a later turn, and so are those
 * of a source that closes while the file does not let it.
 */
import type { Clock, Timer } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import { Liveness } from '../liveness.ts'
import type { CallResult, Command, LostLeases, PullResult, ThreadData, Turn, WireError } from '../protocol.ts'
import type { PlannedGrant } from '../store/delivery/leases.ts'
import { describeFailure } from '../store/file/failure.ts'
import { identityAt } from '../store/file/log-file.ts'
import { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import { CancelNotices } from './cancel-notices.ts'
import { Checkpoints } from './checkpoints.ts'
import { Deliverer } from './delivery.ts'
import { Grants } from './grants.ts'
import { GroupCommit, type Outcome } from './group-commit.ts'
import { HandlerOperations } from './handler-operations.ts'
import { Housekeeping } from './housekeeping.ts'
import { Operations } from './operations.ts'
import { Session } from './session.ts'
import { Shipments } from './shipments.ts'
import { SourceOperations } from './source-operations.ts'
import { type OpenSource, Sources } from './sources.ts'
import { Wake } from './wake.ts'

const QUIET_MS = 25

/** What the deliveries of a turn come to. */
interface Delivered {
  readonly grants: PullResult[]
  readonly damaged: { source: number; error: WireError }[]
  /** Nothing of a grant could be read, so its pull should be answered with something else at once. */
  again: boolean
}

export class Writer {
  readonly #store: Store
  readonly #clock: Clock
  readonly #post: (turn: Turn) => void
  readonly #sources = new Sources()
  readonly #session: Session
  readonly #cancelNotices: CancelNotices
  readonly #sourceOperations: SourceOperations
  readonly #operations: Operations
  readonly #housekeeping: Housekeeping
  readonly #shipments = new Shipments()
  readonly #deliverer: Deliverer
  readonly #checkpoints: Checkpoints
  readonly #wake: Wake
  readonly #groupCommit: GroupCommit
  #quietTimer: Timer | undefined
  #closed = false

  constructor(data: ThreadData, clock: Clock, post: (turn: Turn) => void, onAlarm: () => void) {
    const store = openStore(data)
    this.#store = store
    this.#clock = clock
    this.#post = post
    this.#session = new Session(store, new Liveness(data.liveness), data.leaseMs, clock)
    this.#cancelNotices = new CancelNotices(store, this.#sources, this.#session)
    this.#sourceOperations = new SourceOperations(store, this.#sources, this.#session)
    this.#operations = new Operations(
      store,
      this.#sources,
      this.#session,
      this.#cancelNotices,
      this.#sourceOperations,
      new HandlerOperations(store, this.#sources, this.#session, clock),
    )
    this.#housekeeping = new Housekeeping(store, this.#sources, this.#session, this.#cancelNotices, clock, onAlarm)
    this.#deliverer = new Deliverer(store, this.#shipments)
    this.#checkpoints = new Checkpoints(store.connection)
    // Our own commits wake us as well: without a pull that waits there is nothing to look for that cannot wait until the
    // next look at the file; with held time there is no such look.
    this.#wake = new Wake(store.connection.realFile, () => {
      if (this.#sources.anyWaiting() || !clock.real) onAlarm()
    })
    const grants = new Grants(store, this.#sources, this.#session, clock)
    this.#groupCommit = new GroupCommit(store, this.#sources, grants, this.#wake)
  }

  /** Tells the file from every other one. Undefined for a database in memory. */
  get identity(): string | undefined {
    return this.#store.connection.identity
  }

  /** Carries out the commands, and whatever else has become due. */
  turn(commands: readonly Command[]): void {
    if (this.#closed) return
    const nowMs = this.#clock.now()
    const closing = commands.find((command) => command.kind === 'close')
    const operations = this.#sourceOperations.unfinished()
    operations.push(...this.#operations.prepare(commands, nowMs))
    for (const command of commands) if (command.kind === 'unpull') this.#giveBack(command.source, command.pull)
    if (commands.some((command) => command.kind === 'userCommitted')) this.#checkpoints.userCommitted()
    const lost = this.#session.keep(nowMs, this.#sources)
    operations.push(...this.#housekeeping.due(nowMs))
    this.#finish(this.#groupCommit.carryOut(operations, nowMs), lost, nowMs)
    if (closing && !this.#closed) this.#close(closing.call)
  }

  #finish({ results, unsynced, plans, surplus, trouble }: Outcome, lost: LostLeases | undefined, nowMs: number): void {
    const delivered: Delivered = { grants: [], damaged: [], again: false }
    for (const [source, plan] of plans) this.#deliver(source, plan, delivered, nowMs)
    const { grants, damaged, again } = delivered
    grants.push(...this.#sources.takeFailures())
    const alarmAtMs = this.#housekeeping.setAlarm(again)
    const cancelled = this.#cancelNotices.take()
    this.#say({
      results,
      grants,
      damaged,
      ...(cancelled.length > 0 && { cancelled }),
      ...(surplus.length > 0 && { surplus }),
      ...this.#shipments.take(this.#sources.size),
      ...(lost && { lost }),
      ...(trouble && { trouble }),
      ...(alarmAtMs !== undefined && { alarmAtMs }),
    })
    if (this.#acknowledge(unsynced)) this.#checkpoint()
  }

  // Until it is committed, whatever fails: nobody else would ever be given these messages.
  #giveBack(number: number, pull: number): void {
    const source = this.#sources.get(number)
    if (source) this.#housekeeping.giveBack(source, this.#sources.takeUnseen(source, pull))
  }

  #deliver(source: OpenSource, plan: readonly PlannedGrant[], delivered: Delivered, nowMs: number): void {
    for (const { lease } of plan) source.leases.add(lease)
    const delivery = this.#deliverer.deliver(source, this.#session.id, plan, nowMs)
    for (const error of delivery.damaged) delivered.damaged.push({ source: source.number, error })
    for (const lease of delivery.ended) source.leases.delete(lease)
    this.#housekeeping.giveBack(source, delivery.stranded)
    if (delivery.grants.length > 0) {
      const { pull } = source.pull!
      delivered.grants.push({ source: source.number, pull, grants: delivery.grants })
      for (const { takeover, partition, lease } of delivery.grants) if (takeover) source.announced.set(partition, lease)
      source.answered = { pull, leases: delivery.grants.map(({ lease }) => lease) }
      source.pull = undefined
    } else if (delivery.failure === undefined) {
      delivered.again = true
    } else {
      this.#sources.fail(source, describeFailure(delivery.failure, this.#store.connection.file))
    }
  }

  #say(turn: Turn): void {
    const { results, grants, damaged, cancelled, surplus, forget, lost, trouble, alarmAtMs } = turn
    const silent = results.length + grants.length + damaged.length + forget.length === 0
    if (!silent || cancelled || surplus || lost || trouble || alarmAtMs !== undefined) this.#post(turn)
  }

  // After what need not wait for the disk has been said. Returns whether the thread goes on.
  #acknowledge(unsynced: readonly CallResult[]): boolean {
    const { connection } = this.#store
    try {
      if (unsynced.length === 0) connection.refuseReplaced()
      else connection.sync()
    } catch (error) {
      this.#fail(describeFailure(error, connection.file), unsynced)
      return false
    }
    if (unsynced.length > 0) this.#post({ ...NOTHING, results: unsynced })
    return true
  }

  #fail(failure: PosthornError, unsynced: readonly CallResult[]): void {
    const replaced = failure.code === 'POSTHORN_STORAGE_REPLACED'
    const { store = '', problem = '' } = failure.details
    const answer = replaced ? failure : new PosthornError('POSTHORN_OUTCOME_UNKNOWN', { store, problem })
    // What was refused before anything was written stays refused for its own reason.
    const results = unsynced.map((result) => ('error' in result ? result : { ...result, error: toWire(answer) }))
    const reason = replaced ? 'the file was removed or replaced' : `the file is opened again, after this: ${problem}`
    const lost = { reason, held: this.#sources.takeLeases() }
    this.#end()
    this.#post({ ...NOTHING, results, lost, ended: toWire(failure) })
  }

  #checkpoint(): void {
    if (this.#checkpoints.isDue(false)) this.#checkpoints.run()
    else if (this.#checkpoints.isDue(true)) {
      this.#quietTimer?.cancel()
      this.#quietTimer = this.#clock.setTimer(QUIET_MS, () => {
        this.#quietTimer = undefined
        if (!this.#closed && this.#checkpoints.isDue(true)) this.#checkpoints.run()
      })
    }
  }

  #close(call: number): void {
    const failure = this.#end()
    const result: CallResult = failure ? { call, error: toWire(failure) } : { call, value: undefined }
    this.#post({ ...NOTHING, results: [result] })
  }

  /** Gives everything back and closes the file. Returns what kept it from doing so, if anything did. */
  #end(): PosthornError | undefined {
    this.#closed = true
    this.#quietTimer?.cancel()
    this.#housekeeping.stop()
    const { connection } = this.#store
    try {
      if (this.#session.end()) this.#wake.others()
      return undefined
    } catch (error) {
      return describeFailure(error, connection.file)
    } finally {
      this.#wake.close()
      connection.close()
    }
  }
}

const NOTHING: Turn = { results: [], grants: [], damaged: [], batches: [], forget: [] }

// A thread that follows another one opens that one's file, and makes no new one in its place.
function openStore({ address, identity, afterFailedSync }: ThreadData): Store {
  const { file } = address
  if (identity !== undefined && identityAt(file) !== identity) {
    throw new PosthornError('POSTHORN_STORAGE_REPLACED', { store: file })
  }
  const store = Store.open(address)
  if (!afterFailedSync) return store
  try {
    store.connection.emptyLog()
    return store
  } catch (error) {
    store.connection.close()
    throw error
  }
}
