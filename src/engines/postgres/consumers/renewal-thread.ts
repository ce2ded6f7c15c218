/** The entry point of the thread that renews a session, on a connection of its own. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { type Clock, systemClock } from '../../../environment/index.ts'
import type { PostgresAddress } from '../address.ts'
import { Database } from '../database/database.ts'
import { OwnConnection } from '../database/own-connection.ts'
import { Life } from './life.ts'
import { RENEWALS_PER_LEASE, Renewer } from './renewer.ts'

export interface ThreadData {
  readonly address: PostgresAddress
  readonly leaseMs: number
  readonly life: SharedArrayBuffer
  /** Of the event loop's clock when the thread was made. */
  readonly elapsedMs: number
}

export type ToThread = { readonly keep: string | undefined } | { readonly elapsedMs: number } | 'end'
export type FromThread =
  | 'ready'
  | { readonly lost: string }
  | { readonly trouble: string; readonly code: string | undefined }

const ANSWER_MS_MIN = 1_000
const GOODBYE_MS_MAX = 1_000

const { address, leaseMs, life, elapsedMs } = workerData as ThreadData
const port = parentPort as MessagePort

// The event loop's clock is ahead of this thread's by so much at least: what it says is later when it is heard. Told too
// little, a lease seems to end too early rather than too late.
let aheadMs = elapsedMs - systemClock.elapsedMs()
const clock: Clock = { ...systemClock, elapsedMs: () => systemClock.elapsedMs() + aheadMs }

const say = (message: FromThread) => port.postMessage(message)
const connection = new OwnConnection(new Database(address), Math.max(ANSWER_MS_MIN, leaseMs / RENEWALS_PER_LEASE))
const renewer = new Renewer(connection, clock, new Life(clock, life), leaseMs, {
  onLost: (lost) => say({ lost }),
  onTrouble: (error) => say({ trouble: error.message, code: (error as { code?: string }).code }),
})

async function end(): Promise<void> {
  systemClock.setTimer(GOODBYE_MS_MAX, () => process.exit())
  await renewer.end()
  await connection.close()
  process.exit()
}

port.on('message', (message: ToThread) => {
  if (message === 'end') void end()
  else if ('keep' in message) renewer.keep(message.keep)
  else aheadMs = Math.max(aheadMs, message.elapsedMs - systemClock.elapsedMs())
})
say('ready')
