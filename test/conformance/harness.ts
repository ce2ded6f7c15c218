import type { Capabilities, Engine, EngineOptions } from '../../src/engine.ts'

/** What the suite needs to know about an engine in order to test it. */
export interface ConformanceHarness {
  readonly capabilities: Capabilities
  /** Names a store that does not exist yet. */
  newStore(): Promise<string>
  /** Deletes the store, whatever state it is in; all of its engines are closed. */
  removeStore(store: string): Promise<void>
  /** Opens the store, and creates it when it is not there. Each call stands for another process. */
  open(store: string, options: EngineOptions): Promise<Engine>
  /**
   * Ends the engine as `kill -9` would: its leases remain until they run out. Without it, the suite stops the engine's
   * clock and its pulls for good, which looks the same to everybody else who uses the store.
   */
  crash?(engine: Engine): Promise<void>
  /** Changes a stored byte of the first record batch of a topic's partition 0. */
  corrupt?(store: string, topic: string): Promise<void>
}
