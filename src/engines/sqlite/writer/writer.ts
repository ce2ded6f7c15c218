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
 * A failure of the file does not end the thread: calls and pulls are told, and the next turn tries again. The exception
 * is a disk that fails to sync, for nobody can tell then what it holds. Leases that were
 * committed but whose messages could not be read are *stranded*: they are given back in a later turn.
 */
import type { Clock, Timer } from '../../../environment/index.ts'
import { Liveness } from '../liveness.ts'
import type { CallResult, Command, LostLeases, PullResult, ThreadData, Turn, WireError } from '../protocol.ts'
import { describeFailure } from '../store/failure.ts'
import type { PlannedGrant } from '../store/leases.ts'
import { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import { Checkpoints } from './checkpoints.ts'
import { Deliverer } from './delivery.ts'
import { GroupCommit, type Outcome } from './group-commit.ts'
import { Housekeeping } from './housekeeping.ts'
import { Operations } from './operations.ts'
import { Session } from './session.ts'
import { Shipments } from './shipments.ts'
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
    const store = Store.open(data.address)
    this.#store = store
    this.#clock = clock
    this.#post = post
    this.#session = new Session(store, new Liveness(data.liveness), data.leaseMs, clock)
    this.#operations = new Operations(store, this.#sources, this.#session)
    this.#housekeeping = new Housekeeping(store, this.#sources, this.#session, clock, onAlarm)
    this.#deliverer = new Deliverer(store, this.#shipments)
    this.#checkpoints = new Checkpoints(store.connection)
    // Our own commits wake us as well: without a pull that waits there is nothing to look for.
    this.#wake = new Wake(data.address.file, () => {
      if (this.#sources.anyWaiting()) onAlarm()
    })
    this.#groupCommit = new GroupCommit(store, this.#sources, this.#session, this.#wake)
  }

  /** Carries out the commands, and whatever else has become due. */
  turn(commands: readonly Command[]): void {
    if (this.#closed) return
    const nowMs = this.#clock.now()
    const closing = commands.find((command) => command.kind === 'close')
    const operations = this.#operations.prepare(commands, nowMs)
    if (commands.some((command) => command.kind === 'userCommitted')) this.#checkpoints.userCommitted()
    const lost = this.#session.keep(nowMs, this.#sources)
    operations.push(...this.#housekeeping.due(nowMs))
    this.#finish(this.#groupCommit.carryOut(operations, nowMs), lost, nowMs)
    if (closing) this.#close(closing.call)
  }

  #finish({ results, unsynced, plans, trouble }: Outcome, lost: LostLeases | undefined, nowMs: number): void {
    const delivered: Delivered = { grants: [], damaged: [], again: false }
    for (const [source, plan] of plans) this.#deliver(source, plan, delivered, nowMs)
    const { grants, damaged, again } = delivered
    grants.push(...this.#sources.takeFailures())
    const alarmAtMs = this.#housekeeping.setAlarm(again)
    this.#say({
      results,
      grants,
      damaged,
      ...this.#shipments.take(this.#sources.size),
      ...(lost && { lost }),
      ...(trouble && { trouble }),
      ...(alarmAtMs !== undefined && { alarmAtMs }),
    })
    this.#acknowledge(unsynced)
    this.#checkpoint()
  }

  #deliver(source: OpenSource, plan: readonly PlannedGrant[], delivered: Delivered, nowMs: number): void {
    for (const { lease } of plan) source.leases.add(lease)
    const delivery = this.#deliverer.deliver(source, this.#session.id, plan, nowMs)
    for (const error of delivery.damaged) delivered.damaged.push({ source: source.number, error })
    for (const lease of delivery.ended) source.leases.delete(lease)
    this.#housekeeping.giveBack(source, delivery.stranded)
    if (delivery.grants.length > 0) {
      delivered.grants.push({ source: source.number, pull: source.pull!.pull, grants: delivery.grants })
      source.pull = undefined
    } else if (delivery.failure === undefined) {
      delivered.again = true
    } else {
      this.#sources.fail(source, describeFailure(delivery.failure, this.#store.connection.file))
    }
  }

  #say(turn: Turn): void {
    const { results, grants, damaged, forget, lost, trouble, alarmAtMs } = turn
    const silent = results.length + grants.length + damaged.length + forget.length === 0
    if (!silent || lost || trouble || alarmAtMs !== undefined) this.#post(turn)
  }

  // After what need not wait for the disk has been said.
  #acknowledge(unsynced: readonly CallResult[]): void {
    if (unsynced.length === 0) return
    this.#store.connection.sync()
    this.#post({ results: unsynced, grants: [], damaged: [], batches: [], forget: [] })
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
    this.#closed = true
    this.#quietTimer?.cancel()
    this.#housekeeping.stop()
    let result: CallResult = { call, value: undefined }
    try {
      if (this.#session.end()) this.#wake.others()
    } catch (error) {
      result = { call, error: toWire(describeFailure(error, this.#store.connection.file)) }
    } finally {
      this.#wake.close()
      this.#store.connection.close()
    }
    this.#post({ results: [result], grants: [], damaged: [], batches: [], forget: [] })
  }
}
