import type { Grant, LeaseId, SettledException, Settlement } from '../../src/engine.ts'
import type { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { FakeSource, messageAt, offsetsIn, type Pull } from './fake-source.ts'

interface Row {
  readonly offset: number
  readonly key: string | undefined
  /** When it is due; beyond all time while it waits for its chain. */
  dueAtMs: number
  parked: boolean
  attempt: number
  crashes: number
  leased: boolean
}

interface Lease {
  readonly open: Set<number>
  readonly row: Row | undefined
  readonly crashes: number
  readonly isolated: boolean
}

interface Range {
  readonly offsets: number[]
  readonly crashes: number
}

export interface Fate {
  /** Of a handler call. */
  readonly attempt: number
  readonly crashes: number
}

const NEVER_MS = Number.POSITIVE_INFINITY
const WAKE_MAX = 3
const ISOLATED_FROM = 2

/**
 * What the contract says of one partition of an ordered subscription, in memory: ranges of a log, returned ranges, and
 * chains of rows for each key. Restarts and lost sessions happen when the test says so.
 */
export class OrderedEngine extends FakeSource {
  readonly keys: readonly (string | undefined)[]
  /** Settled for good, by offset. */
  readonly settled = new Set<number>()
  readonly blocking = new Set<number>()
  readonly rows = new Map<number, Row>()
  grantMax = 4
  refusals = 0
  /** Settlements are recorded, or answered, only when the engine is woken next. */
  late: 'recorded' | 'answered' | undefined
  readonly #clock: VirtualClock
  readonly #leases = new Map<LeaseId, Lease>()
  #returned: Range[] = []
  #next = 0
  #lastLease = 0
  #owned = false
  #wakePull: () => void = () => {}
  #waiting: (() => void)[] = []

  constructor(clock: VirtualClock, keys: readonly (string | undefined)[]) {
    super()
    this.#clock = clock
    this.keys = keys
  }

  /** Everything is settled for good. */
  get done(): boolean {
    return this.keys.every((_, offset) => this.settled.has(offset))
  }

  /** The session is lost: what was leased comes back, and the partition is taken over again. */
  loseSession(): void {
    const leases = [...this.#leases.keys()]
    for (const lease of leases) this.#return(lease, 1)
    this.#owned = false
    this.lose(leases)
    this.#wakePull()
  }

  /** Wakes the pull, and what is late: time has passed. */
  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
    this.#wakePull()
  }

  /** Deletes the first dead letter that blocks its key, as an operator would. Says whether there was one. */
  skip(): boolean {
    const [offset] = this.blocking
    if (offset === undefined) return false
    this.blocking.delete(offset)
    this.settled.add(offset)
    this.#advance(this.keys[offset])
    this.#wakePull()
    return true
  }

  /** Puts the first dead letter that blocks its key back before what is behind it, as an operator would. */
  redrive(): void {
    const [offset] = this.blocking
    if (offset === undefined) return
    this.blocking.delete(offset)
    this.#setAside(offset, { dueAtMs: this.#clock.now(), parked: false, attempt: 1, crashes: 0 })
    this.#holdBehind(this.keys[offset], offset)
    this.#wakePull()
  }

  override async pull(limits: Pull, signal: AbortSignal): Promise<readonly Grant[]> {
    for (;;) {
      const grants = this.#grants(Math.min(this.grantMax, limits.messagesMax))
      if (grants.length > 0 || signal.aborted) return grants
      await new Promise<void>((resolve) => {
        this.#wakePull = resolve
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  override async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    if (this.refusals > 0) {
      this.refusals--
      throw new Error('the store is busy')
    }
    if (this.late === 'recorded') await this.#pause()
    const fenced = settlements.filter(({ lease }) => !this.#leases.has(lease)).map(({ lease }) => lease)
    for (const settlement of settlements) if (this.#leases.has(settlement.lease)) this.#settle(settlement)
    this.#wakePull()
    if (this.late === 'answered') await this.#pause()
    return fenced
  }

  override async close(): Promise<void> {
    for (const lease of [...this.#leases.keys()]) this.#return(lease, 0)
    this.#owned = false
  }

  /** Stops a message as an operator would. */
  cancelOffset(offset: number): void {
    for (const [id, lease] of this.#leases) {
      if (!lease.open.has(offset)) continue
      this.#settleForGood(id, offset)
      this.cancel(id, offset)
      return
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #grants(messagesMax: number): readonly Grant[] {
    const grant = this.#returnedGrant() ?? this.#dueGrant() ?? this.#freshGrant(messagesMax)
    if (grant === undefined) return []
    if (this.#owned) return [grant]
    this.#owned = true
    const takeover = this.#chains()
    for (const key of new Set(this.keys)) this.#wakeFirst(key)
    return [{ ...grant, takeover }]
  }

  #chains() {
    const rows = [...this.rows.values()].filter(({ key }) => key !== undefined)
    const blocked = [...this.blocking].map((offset) => ({ key: this.keys[offset], offset }))
    return [...new Set([...rows, ...blocked].map(({ key }) => key!))].map((key) => {
      const offsets = [...rows, ...blocked].filter((row) => row.key === key).map(({ offset }) => offset)
      return { key, firstOffset: Math.min(...offsets), lastOffset: Math.max(...offsets) }
    })
  }

  // Returned ranges come first, in offset order; a suspect while another is out holds back everything.
  #returnedGrant(): Grant | undefined {
    const [first] = this.#returned.sort((one, other) => one.offsets[0]! - other.offsets[0]!)
    if (first === undefined) return undefined
    const isolated = first.crashes >= ISOLATED_FROM
    if (isolated && this.#suspectIsOut()) return undefined
    const offsets = isolated ? first.offsets.splice(0, 1) : first.offsets.splice(0)
    if (first.offsets.length === 0) this.#returned.shift()
    return this.#grant(offsets, { crashes: first.crashes, isolated })
  }

  #dueGrant(): Grant | undefined {
    if (this.#returned.length > 0) return undefined
    const due = [...this.rows.values()].filter((row) => this.#isGrantable(row))
    const [row] = due.sort((one, other) => one.offset - other.offset)
    if (row === undefined) return undefined
    const isolated = row.crashes >= ISOLATED_FROM
    if (isolated && this.#suspectIsOut()) return undefined
    row.leased = true
    return this.#grant([row.offset], { crashes: row.crashes, isolated, row })
  }

  // What came back out of somebody's hands may be due while one before it in its chain is not any more.
  #isGrantable({ key, offset, leased, dueAtMs }: Row): boolean {
    const nowMs = this.#clock.now()
    const waits = this.#chain(key).some((row) => row.offset < offset && !row.leased && row.dueAtMs > nowMs)
    return !leased && dueAtMs <= nowMs && !waits
  }

  #freshGrant(messagesMax: number): Grant | undefined {
    if (this.#returned.length > 0 || this.#next >= this.keys.length) return undefined
    const offsets: number[] = []
    while (offsets.length < messagesMax && this.#next < this.keys.length) offsets.push(this.#next++)
    return this.#grant(offsets, { crashes: 0, isolated: false })
  }

  #grant(offsets: number[], { crashes, isolated, row }: { crashes: number; isolated: boolean; row?: Row }): Grant {
    const lease = ++this.#lastLease
    this.#leases.set(lease, { open: new Set(offsets), row, crashes, isolated })
    const messages = offsets.map((offset) => {
      const { event } = messageAt(offset)
      const key = this.keys[offset]
      return { offset, event: key === undefined ? event : { ...event, subject: key } }
    })
    const { attempt = 1 } = row ?? {}
    const common = { partition: 0, failures: [], bytes: 100 * offsets.length, setAside: row !== undefined }
    return { ...common, lease, messages, attempt, crashes, isolated }
  }

  #settle({ lease, acked, exceptions, freed = [] }: Settlement): void {
    for (const offset of offsetsIn(acked)) this.#settleForGood(lease, offset)
    for (const exception of exceptions) this.#except(lease, exception)
    for (const key of freed) this.#advance(key)
  }

  #settleForGood(leaseId: LeaseId, offset: number): void {
    this.settled.add(offset)
    this.#take(leaseId, offset)
    if (this.rows.delete(offset)) this.#advance(this.keys[offset])
  }

  #except(leaseId: LeaseId, exception: SettledException): void {
    const { offset } = exception
    const lease = this.#leases.get(leaseId)!
    const key = this.keys[offset]
    const attempt = lease.row?.attempt ?? 1
    if (exception.kind === 'release') {
      this.#giveBack(lease, offset, 0)
      this.#take(leaseId, offset)
    } else if (exception.kind === 'retry') {
      this.#take(leaseId, offset)
      this.#setAside(offset, { dueAtMs: exception.dueAtMs, parked: false, attempt: attempt + 1, crashes: 0 })
      this.#holdBehind(key, offset)
    } else if (exception.kind === 'park') {
      this.#take(leaseId, offset)
      this.#park(offset, exception.until, { attempt, crashes: lease.crashes })
    } else if (exception.blocks === true) {
      this.rows.delete(offset)
      this.#take(leaseId, offset)
      this.blocking.add(offset)
      this.#holdBehind(key, offset)
    } else {
      this.#settleForGood(leaseId, offset)
    }
  }

  #park(offset: number, until: number | 'chain' | 'freed', fate: Fate): void {
    const key = this.keys[offset]
    if (typeof until === 'number') {
      this.#setAside(offset, { ...fate, dueAtMs: until, parked: false })
      this.#holdBehind(key, offset)
      return
    }
    const waits = until === 'freed' || this.#isBlocked(key) || this.#chain(key).some((row) => row.offset < offset)
    this.#setAside(offset, { ...fate, dueAtMs: waits ? NEVER_MS : this.#clock.now(), parked: waits })
  }

  #setAside(offset: number, row: Omit<Row, 'offset' | 'key' | 'leased'>): void {
    this.rows.set(offset, { ...row, offset, key: this.keys[offset], leased: false })
  }

  #take(leaseId: LeaseId, offset: number): void {
    const lease = this.#leases.get(leaseId)!
    lease.open.delete(offset)
    if (lease.open.size === 0) this.#leases.delete(leaseId)
  }

  #return(leaseId: LeaseId, crashes: number): void {
    const lease = this.#leases.get(leaseId)!
    this.#leases.delete(leaseId)
    for (const offset of lease.open) this.#giveBack(lease, offset, crashes)
  }

  #giveBack(lease: Lease, offset: number, crashes: number): void {
    if (lease.row === undefined) {
      this.#returned.push({ offsets: [offset], crashes: lease.crashes + crashes })
      return
    }
    lease.row.leased = false
    lease.row.crashes += crashes
    lease.row.dueAtMs = this.#clock.now()
  }

  // The first ones of a chain, as far as nothing but the chain keeps them waiting.
  #advance(key: string | undefined): void {
    if (key === undefined || this.#isBlocked(key)) return
    for (const row of this.#chain(key).slice(0, WAKE_MAX)) {
      if (!row.parked) return
      this.#wakeRow(row)
    }
  }

  #wakeFirst(key: string | undefined): void {
    const [first] = this.#chain(key)
    if (first?.parked && !this.#isBlocked(key)) this.#wakeRow(first)
  }

  #wakeRow(row: Row): void {
    row.parked = false
    row.dueAtMs = this.#clock.now()
  }

  #holdBehind(key: string | undefined, offset: number): void {
    for (const row of this.#chain(key)) {
      if (row.offset <= offset || row.leased || row.dueAtMs > this.#clock.now()) continue
      row.parked = true
      row.dueAtMs = NEVER_MS
    }
  }

  #chain(key: string | undefined): Row[] {
    if (key === undefined) return []
    const rows = [...this.rows.values()].filter((row) => row.key === key)
    return rows.sort((one, other) => one.offset - other.offset)
  }

  #isBlocked(key: string | undefined): boolean {
    return key !== undefined && [...this.blocking].some((offset) => this.keys[offset] === key)
  }

  #suspectIsOut(): boolean {
    return [...this.#leases.values()].some(({ isolated }) => isolated)
  }
}
