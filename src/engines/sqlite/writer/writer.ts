/**
 * The one place that writes to the file for this process, in a thread of its own.
 *
 * It works in turns. A turn takes every command that has arrived, carries them all out in one transaction (group
 * commit: what arrives while a commit is under way forms the next), leases messages to the pulls that wait, commits,
 * and only then answers. If the transaction fails and held more than one command, each is tried again by itself, so
 * that only the guilty one fails. Nothing in memory depends on a transaction that may still roll back.
 *
 * Between turns it sleeps until a command arrives, another process says that it committed (see wake.ts), or an alarm
 * goes off: a retry or delayed message falls due, a session runs out, or the safety net looks whether the file changed.
 */
import type { Clock, Timer } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import { Liveness } from '../liveness.ts'
import type { CallResult, Command, PullResult, ThreadData, Turn, WireError } from '../protocol.ts'
import { describeFailure } from '../store/failure.ts'
import type { PlannedGrant } from '../store/leases.ts'
import { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import { Checkpoints } from './checkpoints.ts'
import { Deliverer, type Delivery } from './delivery.ts'
import { Housekeeping } from './housekeeping.ts'
import { type Operation, Operations } from './operations.ts'
import { Session } from './session.ts'
import { Shipments } from './shipments.ts'
import { type OpenSource, Sources } from './sources.ts'
import { Wake } from './wake.ts'

const QUIET_MS = 25

interface Outcome {
  results: CallResult[]
  plans: Map<OpenSource, readonly PlannedGrant[]>
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
  #quietTimer: Timer | undefined
  #closed = false

  constructor(data: ThreadData, clock: Clock, post: (turn: Turn) => void, onAlarm: () => void) {
    this.#store = Store.open(data.address)
    this.#clock = clock
    this.#post = post
    this.#session = new Session(this.#store, new Liveness(data.liveness), data.leaseMs)
    this.#operations = new Operations(this.#store, this.#sources, this.#session)
    this.#housekeeping = new Housekeeping(this.#store, this.#sources, this.#session, clock, onAlarm)
    this.#deliverer = new Deliverer(this.#store, this.#shipments)
    this.#checkpoints = new Checkpoints(this.#store.connection)
    this.#wake = new Wake(data.address.file, onAlarm)
  }

  /** Carries out the commands, and whatever else has become due. */
  turn(commands: readonly Command[]): void {
    if (this.#closed) return
    const closing = commands.find((command) => command.kind === 'close')
    try {
      this.#take(commands)
    } catch (error) {
      this.#fail(commands, error)
    }
    if (closing) this.#close(closing.call)
  }

  #take(commands: readonly Command[]): void {
    const nowMs = this.#clock.now()
    const operations = this.#operations.prepare(commands, nowMs)
    const lost = this.#session.keep(nowMs, this.#sources)
    operations.push(...this.#housekeeping.due(nowMs))
    this.#finish(this.#carryOut(operations, nowMs), lost, nowMs)
  }

  // The file could not even be read. Nothing has been said in this turn, so every command gets the error.
  #fail(commands: readonly Command[], error: unknown): void {
    const failure = toWire(describeFailure(error, this.#store.connection.file))
    const calls = commands.flatMap((command) => ('call' in command && command.kind !== 'close' ? [command.call] : []))
    this.#sources.failWaiting(failure)
    this.#say({
      results: calls.map((call) => ({ call, error: failure })),
      grants: this.#sources.takeFailures(),
      damaged: [],
      ...this.#shipments.take(),
    })
    this.#housekeeping.setAlarmAfterFailure()
  }

  #carryOut(operations: readonly Operation[], nowMs: number): Outcome {
    const outcome: Outcome = { results: [], plans: new Map() }
    const transactional = operations.filter((operation) => operation.transactional)
    for (const operation of operations) {
      if (!operation.transactional) outcome.results.push(...run(operation))
    }
    if (transactional.length === 0 && !this.#sources.haveWork(this.#store, nowMs)) return outcome
    try {
      this.#commit(transactional, outcome, nowMs)
    } catch (error) {
      this.#commitSingly(transactional, outcome, error, nowMs)
    }
    return outcome
  }

  #commit(operations: readonly Operation[], outcome: Outcome, nowMs: number): void {
    const durable = operations.some((operation) => operation.durable)
    const { results, plans } = this.#store.connection.write(durable, () => ({
      results: operations.flatMap(run),
      plans: this.#grant(outcome.plans, nowMs),
    }))
    outcome.results.push(...results)
    for (const [source, plan] of plans) outcome.plans.set(source, plan)
    this.#checkpoints.committed(operations.reduce((sum, operation) => sum + operation.bytes, 0))
    if (operations.some((operation) => operation.concernsOthers())) this.#wake.others()
  }

  #commitSingly(operations: readonly Operation[], outcome: Outcome, error: unknown, nowMs: number): void {
    if (operations.length <= 1) {
      const [operation] = operations
      if (operation?.call !== undefined) outcome.results.push({ call: operation.call, error: toWire(error) })
      else this.#sources.failWaiting(toWire(error))
      return
    }
    for (const operation of operations) {
      try {
        this.#commit([operation], outcome, nowMs)
      } catch (failure) {
        this.#commitSingly([operation], outcome, failure, nowMs)
      }
    }
  }

  #grant(granted: Outcome['plans'], nowMs: number): Outcome['plans'] {
    const plans: Outcome['plans'] = new Map()
    // Leases of no session would never be taken back.
    if (this.#session.id === 0) return plans
    for (const source of this.#sources.waiting(this.#store, nowMs)) {
      if (granted.has(source)) continue
      const { messagesMax, bytesMax } = source.pull!
      const plan = this.#store.granting.grant({ source, sessionId: this.#session.id, messagesMax, bytesMax, nowMs })
      if (plan.length > 0) plans.set(source, plan)
    }
    return plans
  }

  #finish({ results, plans }: Outcome, sessionLost: string | undefined, nowMs: number): void {
    const held = sessionLost === undefined ? [] : this.#sources.takeLeases()
    const grants: PullResult[] = []
    const damaged: { source: number; error: WireError }[] = []
    let again = false
    for (const [source, plan] of plans) {
      for (const { lease } of plan) source.leases.add(lease)
      const delivery = this.#deliver(source, plan, nowMs)
      if (!delivery) continue
      for (const error of delivery.damaged) damaged.push({ source: source.number, error })
      if (delivery.grants.length === 0) {
        again = true
        continue
      }
      source.pull = undefined
      grants.push({ source: source.number, grants: delivery.grants })
    }
    grants.push(...this.#sources.takeFailures())
    const alarmAtMs = this.#housekeeping.setAlarm(again)
    this.#say({
      results,
      grants,
      damaged,
      ...this.#shipments.take(),
      ...(sessionLost !== undefined && { sessionLost: { reason: sessionLost, held } }),
      ...(alarmAtMs !== undefined && { alarmAtMs }),
    })
    this.#checkpoint()
  }

  // What cannot be read now is given back, or else given back when the source closes.
  #deliver(source: OpenSource, plan: readonly PlannedGrant[], nowMs: number): Delivery | undefined {
    try {
      return this.#deliverer.deliver(source, source.topic, this.#session.id, plan, nowMs)
    } catch (error) {
      this.#sources.fail(source, toWire(describeFailure(error, this.#store.connection.file)))
      this.#store.connection.write(false, () => {
        for (const { lease } of plan) this.#store.recall.release(lease, this.#session.id)
      })
      return undefined
    }
  }

  #say(turn: Turn): void {
    const { results, grants, damaged, forget, sessionLost, alarmAtMs } = turn
    const silent = results.length + grants.length + damaged.length + forget.length === 0
    if (!silent || sessionLost !== undefined || alarmAtMs !== undefined) this.#post(turn)
  }

  #checkpoint(): void {
    if (this.#checkpoints.isDue(false)) this.#checkpoints.run()
    else if (this.#checkpoints.isDue(true) && !this.#quietTimer) {
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
    this.#wake.close()
    let result: CallResult = { call, value: undefined }
    try {
      if (this.#session.end()) this.#wake.others()
      this.#store.connection.close()
    } catch (error) {
      result = { call, error: toWire(error) }
    }
    this.#post({ results: [result], grants: [], damaged: [], batches: [], forget: [] })
  }
}

// Coded errors are thrown before anything is written: they answer the call. Anything else undoes the transaction.
function run(operation: Operation): CallResult[] {
  const { call } = operation
  try {
    const value = operation.run()
    return call === undefined ? [] : [{ call, value }]
  } catch (error) {
    if (call === undefined || !(error instanceof PosthornError)) throw error
    return [{ call, error: toWire(error) }]
  }
}
