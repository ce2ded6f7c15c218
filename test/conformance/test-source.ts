import assert from 'node:assert/strict'
import type {
  AdmissionDemand,
  Grant,
  LeaseId,
  SettledException,
  Settlement,
  Source,
  SourceOptions,
} from '../../src/engine.ts'
import { linkSignals } from '../../src/environment/index.ts'
import { failure } from './messages.ts'
import type { TestProcess } from './test-process.ts'

const BYTES_MAX = 64 * 1024 * 1024
const MESSAGES_MAX = 1_000

export interface Cancelled {
  readonly lease: LeaseId
  readonly offset: number
}

/** A source, with short ways to pull and to settle whole grants. */
export class TestSource {
  /** What the engine reported as lost, in order. */
  readonly lost: LeaseId[] = []
  readonly damage: Error[] = []
  /** What the engine reported as cancelled while it was leased, in order. */
  readonly cancelled: Cancelled[] = []
  /** Of which the engine asked last to release what was not begun. */
  surplus: readonly number[] = []
  readonly #process: TestProcess
  readonly #stopping = new AbortController()
  #source: Source | undefined

  private constructor(process: TestProcess) {
    this.#process = process
  }

  static async open(
    process: TestProcess,
    options: Pick<SourceOptions, 'topic' | 'subscription' | 'handlerTimeoutMs' | 'limits'>,
  ): Promise<TestSource> {
    const opened = new TestSource(process)
    opened.#source = await process.engine.openSource({
      ...options,
      onCancelled: (lease, offset) => opened.cancelled.push({ lease, offset }),
      onLeasesLost: (leases) => {
        assert.ok(leases !== 'all', 'a session that is lost by itself has its leases named')
        opened.lost.push(...leases)
      },
      onSurplus: (partitions) => {
        opened.surplus = partitions
      },
      onDamage: (error) => opened.damage.push(error),
    })
    return opened
  }

  get source(): Source {
    assert.ok(this.#source, 'the source is not open yet')
    return this.#source
  }

  /** Waits until there is something. */
  pull(limits: { messagesMax?: number; bytesMax?: number } = {}, signal?: AbortSignal): Promise<readonly Grant[]> {
    const { messagesMax = MESSAGES_MAX, bytesMax = BYTES_MAX } = limits
    const stopping = this.#stopping.signal
    const { signal: ending, unlink } = linkSignals(stopping, signal ?? stopping)
    return this.source.pull({ messagesMax, bytesMax }, ending).finally(unlink)
  }

  /** What can be had now; nothing if the engine has nothing after it had its turn. */
  async pullNow(messagesMax?: number): Promise<readonly Grant[]> {
    const giveUp = new AbortController()
    const pulling = this.pull(messagesMax === undefined ? {} : { messagesMax }, giveUp.signal)
    await Promise.race([pulling, this.#process.roundTrip()])
    giveUp.abort()
    return pulling
  }

  /** One grant with one message. */
  async pullOne(): Promise<Grant> {
    const [grant] = await this.pull({ messagesMax: 1 })
    assert.equal(grant?.messages.length, 1)
    return grant
  }

  /** Pulls until nothing more can be had. */
  async pullAll(): Promise<readonly Grant[]> {
    const all: Grant[] = []
    for (let grants = await this.pullNow(); grants.length > 0; grants = await this.pullNow()) all.push(...grants)
    return all
  }

  /** Pulls and acknowledges until nothing more can be had: for what is granted one at a time. */
  async drain(): Promise<readonly Grant[]> {
    const all: Grant[] = []
    for (let grants = await this.pullNow(); grants.length > 0; grants = await this.pullNow()) {
      assert.deepEqual(await this.ack(grants), [])
      all.push(...grants)
    }
    return all
  }

  ack(grants: readonly Grant[], freed: readonly string[] = []): Promise<readonly LeaseId[]> {
    return this.source.settle(
      grants.map(({ lease, messages }) => ({
        lease,
        acked: [messages[0]!.offset, messages.at(-1)!.offset + 1],
        exceptions: [],
        ...(freed.length > 0 && { freed }),
      })),
    )
  }

  retry(grants: readonly Grant[], dueAtMs: number, key?: string): Promise<readonly LeaseId[]> {
    return this.except(grants, (offset, grant) => this.retried(offset, grant, dueAtMs, key))
  }

  dead(grants: readonly Grant[], options: { key?: string; blocks?: boolean } = {}): Promise<readonly LeaseId[]> {
    return this.except(grants, (offset, grant) => {
      const last = failure(grant.attempt, this.#process.world.clock.now(), 'given up')
      return { offset, kind: 'dead', reason: 'attempts', failure: last, ...options }
    })
  }

  release(grants: readonly Grant[]): Promise<readonly LeaseId[]> {
    return this.except(grants, (offset) => ({ offset, kind: 'release' }))
  }

  park(grants: readonly Grant[], until: number | 'chain' | 'freed', key?: string): Promise<readonly LeaseId[]> {
    return this.except(grants, (offset) => ({ offset, kind: 'park', until, ...(key !== undefined && { key }) }))
  }

  retried(offset: number, grant: Grant, dueAtMs: number, key?: string): SettledException {
    const failed = failure(grant.attempt, this.#process.world.clock.now())
    return { offset, kind: 'retry', dueAtMs, failure: failed, ...(key !== undefined && { key }) }
  }

  /** In one settlement: the first message fails and is tried again at `dueAtMs`, and the others of its key wait for it. */
  retryWithFollowers(grants: readonly Grant[], dueAtMs: number, key: string): Promise<readonly LeaseId[]> {
    const first = offsetOfFirst(grants)
    return this.except(grants, (offset, grant) => {
      return offset === first
        ? this.retried(offset, grant, dueAtMs, key)
        : { offset, kind: 'park', until: 'chain', key }
    })
  }

  /** As `retryWithFollowers`, for the last attempt: the first message becomes a dead letter that blocks its key. */
  blockWithFollowers(grants: readonly Grant[], key: string): Promise<readonly LeaseId[]> {
    const first = offsetOfFirst(grants)
    const last = failure(1, this.#process.world.clock.now(), 'given up')
    return this.except(grants, (offset) => {
      return offset === first
        ? { offset, kind: 'dead', reason: 'attempts', failure: last, key, blocks: true }
        : { offset, kind: 'park', until: 'chain', key }
    })
  }

  /** How many may start, and when, for each of the demands. */
  async admit(demands: readonly AdmissionDemand[]): Promise<readonly (readonly number[])[]> {
    const admissions = await this.source.admit(demands, [])
    assert.equal(admissions.length, demands.length)
    return admissions.map(({ startsInMs }) => startsInMs)
  }

  settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    return this.source.settle(settlements)
  }

  /** Ends waiting pulls, and makes later ones useless. */
  stopPulling(): void {
    this.#stopping.abort()
  }

  close(): Promise<void> {
    return this.source.close()
  }

  /** Settles every message of the grants by an exception. */
  except(
    grants: readonly Grant[],
    exceptionFor: (offset: number, grant: Grant) => SettledException,
  ): Promise<readonly LeaseId[]> {
    return this.source.settle(
      grants.map((grant) => {
        const exceptions = grant.messages.map(({ offset }) => exceptionFor(offset, grant))
        return { lease: grant.lease, acked: [], exceptions }
      }),
    )
  }
}

function offsetOfFirst(grants: readonly Grant[]): number {
  return grants[0]!.messages[0]!.offset
}
