/**
 * What crosses the boundary between the event loop and the writer thread. Messages travel as JSON text: joined per
 * record batch on the way in, a whole record batch at a time on the way out, so that the cost of crossing is spread
 * over many of them.
 */
import type {
  Admission,
  AdmissionDemand,
  AppendReceipt,
  BreakerReport,
  Failure,
  FinishedMessages,
  KeyChain,
  LeaseId,
  Settlement,
  SourceOptions,
  SubscriptionConfig,
  TopicConfig,
} from '../../engine.ts'
import type { ErrorCode } from '../../errors.ts'
import type { SqliteAddress } from './address.ts'
import type { SourceRow } from './store/delivery/leases.ts'

/** Given to the thread when it starts. */
export interface ThreadData {
  readonly address: SqliteAddress
  readonly leaseMs: number
  /** Undefined: the thread keeps time by itself. Otherwise time moves with the commands. */
  readonly heldTimeMs?: number
  /** See liveness.ts. */
  readonly liveness: SharedArrayBuffer
  /** The thread before this one ended because the disk failed to sync. */
  readonly afterFailedSync?: boolean
  /** The file that the thread before this one had open: no other will do. */
  readonly identity?: string
}

/** Messages of one partition, ready to be stored as one record batch. */
export interface WireRun {
  readonly partition: number
  readonly count: number
  readonly firstTimeMs: number
  readonly lastTimeMs: number
  /** A JSON array. */
  readonly data: string
}

/** A message that has to be looked at by itself: its id may be known already, or it is not due yet. */
export interface WireSingle {
  readonly partition: number
  readonly id: string
  readonly own: string
  readonly timeMs: number
  readonly deduplicate: boolean
  readonly deliverAtMs?: number
}

export interface WireGroup {
  readonly topic: string
  /** How many each lane has, as far as the sender knows. */
  readonly partitions: number
  readonly shared: string
  readonly runs: readonly WireRun[]
  readonly singles: readonly WireSingle[]
}

export interface WireError {
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, string | number>>
  readonly cause?: string
}

/** `bases`: the first offset of each run; `receipts`: one for each single. */
export type WireOutcome =
  | { readonly bases: readonly number[]; readonly receipts: readonly AppendReceipt[] }
  | { readonly refused: WireError }

/** The first thing that the thread says; it says nothing more when the file could not be opened. */
export type Opening = { readonly opened: true; readonly identity?: string } | { readonly failed: WireError }

export type Command = { readonly nowMs?: number } & (
  | { readonly kind: 'append'; readonly call: number; readonly groups: readonly WireGroup[]; readonly atomic: boolean }
  | {
      readonly kind: 'settle'
      readonly call: number
      readonly source: number
      readonly settlements: readonly Settlement[]
    }
  | {
      readonly kind: 'pull'
      readonly source: number
      /** Counts the pulls of the source, so that an answer can be told from that to a pull given up before. */
      readonly pull: number
      readonly messagesMax: number
      readonly bytesMax: number
    }
  /** The pull was given up: what it was granted, if it has been answered, was and will be seen by nobody. */
  | { readonly kind: 'unpull'; readonly source: number; readonly pull: number }
  | { readonly kind: 'ensureTopic'; readonly call: number; readonly config: TopicConfig }
  | { readonly kind: 'ensureSubscription'; readonly call: number; readonly config: SubscriptionConfig }
  | { readonly kind: 'openSource'; readonly call: number; readonly source: number; readonly options: WireSourceOptions }
  | { readonly kind: 'closeSource'; readonly call: number; readonly source: number }
  | { readonly kind: 'admin'; readonly call: number; readonly operation: string; readonly values: readonly unknown[] }
  | {
      readonly kind: 'admit'
      readonly call: number
      readonly source: number
      readonly demands: readonly AdmissionDemand[]
      readonly finished: readonly FinishedMessages[]
      readonly sentAtMs: number
    }
  | {
      readonly kind: 'reportBreaker'
      readonly call: number
      readonly source: number
      readonly report: BreakerReport | undefined
    }
  | {
      readonly kind: 'steps'
      readonly call: number
      readonly source: number
      readonly lease: LeaseId
      readonly offset: number
    }
  | {
      readonly kind: 'recordStep'
      readonly call: number
      readonly source: number
      readonly lease: LeaseId
      readonly offset: number
      readonly name: string
      readonly result: string
    }
  /** Asks for the `Holder` that the source's leases have, or undefined when it is not open. */
  | { readonly kind: 'identify'; readonly call: number; readonly source: number }
  /** Leases whose last message was acknowledged by a transactional handler. */
  | { readonly kind: 'leasesEnded'; readonly source: number; readonly leases: readonly LeaseId[] }
  | { readonly kind: 'tick' }
  /** Something was stored through the user's own connection. */
  | { readonly kind: 'userCommitted' }
  | { readonly kind: 'close'; readonly call: number }
)

export type WireSourceOptions = Pick<SourceOptions, 'topic' | 'subscription' | 'limits'>

/** What `admit` is answered: the admissions, and the session that holds their places. */
export interface WireAdmissions {
  readonly sessionId: number
  readonly admissions: readonly Admission[]
}

/** In whose name the leases of a source are. */
export interface Holder {
  readonly sessionId: number
  readonly row: SourceRow
}

/** A record batch on its way to be decoded. */
export interface WireBatch {
  readonly id: number
  readonly baseOffset: number
  readonly shared: string
  readonly data: string
}

/** Messages [from, to) of the batch, by their place in it. */
export interface WireSegment {
  readonly batch: number
  readonly from: number
  readonly to: number
}

export interface WireGrant {
  readonly lease: LeaseId
  readonly partition: number
  readonly attempt: number
  readonly setAside: boolean
  readonly takeover?: readonly KeyChain[]
  readonly crashes: number
  readonly isolated: boolean
  readonly failures: readonly Failure[]
  /** What its messages take up in the store, about. */
  readonly bytes: number
  readonly segments: readonly WireSegment[]
  /** The message itself, where it is kept apart from the log. */
  readonly kept?: { readonly offset: number; readonly event: string }
}

/** Everything that one turn of the thread has to say, in the order in which the event loop acts on it. */
export interface Turn {
  /** Batches that later grants no longer refer to. */
  readonly forget: readonly number[]
  readonly batches: readonly WireBatch[]
  readonly results: readonly CallResult[]
  readonly grants: readonly PullResult[]
  readonly damaged: readonly { readonly source: number; readonly error: WireError }[]
  readonly cancelled?: readonly CancelledMessage[]
  /** What its owners are to release, so that it can change hands. */
  readonly surplus?: readonly SurplusPartitions[]
  readonly lost?: LostLeases
  /** What failed in the background, where no call can be told. */
  readonly trouble?: WireError
  /** With held time: when the thread wants to be told that time has come. */
  readonly alarmAtMs?: number
  /** Why the thread ends with this turn, with everything given back that could be. */
  readonly ended?: WireError
}

/** A message under lease that counts as settled. */
export interface CancelledMessage {
  readonly source: number
  readonly lease: LeaseId
  readonly offset: number
}

/** Partitions beyond the share of a source, of which it holds messages. */
export interface SurplusPartitions {
  readonly source: number
  readonly partitions: readonly number[]
}

/** Leases that are void, by source, and why. */
export interface LostLeases {
  readonly reason: string
  readonly held: readonly { readonly source: number; readonly leases: readonly LeaseId[] }[]
  /** Their session is lost: the leases of the one after it hold until then. */
  readonly leasedUntilMs?: number
}

export type CallResult =
  | { readonly call: number; readonly value: unknown }
  | { readonly call: number; readonly error: WireError }

export type PullResult =
  | { readonly source: number; readonly pull: number; readonly grants: readonly WireGrant[] }
  | { readonly source: number; readonly pull: number; readonly error: WireError }
