import { connectMemory } from '../../src/engines/memory/index.ts'
import type { ConformanceHarness } from '../conformance/index.ts'

let storesMade = 0

export const memoryHarness: ConformanceHarness = {
  capabilities: { durable: false, multiProcess: false, transactionalAppend: false, transactionalHandlers: false },
  newStore: async () => {
    storesMade++
    return `memory:conformance-${storesMade}`
  },
  removeStore: async () => {},
  open: (store, options) => connectMemory(store, options),
}
