import { Consumer } from './consumer.ts'
import { Holder } from './holder.ts'
import { Ledger } from './ledger.ts'
import { Orders } from './orders.ts'
import { PostgresSizes } from './postgres-sizes.ts'
import { PostgresStorage } from './postgres-storage.ts'
import { Publisher } from './publisher.ts'
import { Storage } from './storage.ts'
import { Traffic } from './traffic.ts'

/** What can be started in a process of its own; their methods are called from the process that measures. */
export const actorKinds = {
  publisher: Publisher,
  consumer: Consumer,
  ledger: Ledger,
  storage: Storage,
  postgresStorage: PostgresStorage,
  postgresSizes: PostgresSizes,
  orders: Orders,
  traffic: Traffic,
  holder: Holder,
}

export type ActorKind = keyof typeof actorKinds
export type ActorOf<Kind extends ActorKind> = InstanceType<(typeof actorKinds)[Kind]>

/** An actor seen from another process: what its methods take and resolve with goes through the channel as JSON. */
export type Remote<Actor> = {
  readonly [Name in keyof Actor]: Actor[Name] extends (...parameters: infer Parameters) => Promise<infer Value>
    ? (...parameters: Parameters) => Promise<Value>
    : never
}

/** From the measuring process: call `method` of actor `actor`, which is made by its first call. */
export interface Request {
  readonly call: number
  readonly actor: number
  readonly kind: ActorKind
  readonly method: string
  readonly parameters: readonly unknown[]
}

/** `peakMb` is the most memory that the process has had so far. */
export type Response = { readonly call: number; readonly peakMb: number } & (
  | { readonly value: unknown }
  | { readonly problem: string }
)
