import { conformance } from '../conformance/index.ts'
import { memoryHarness } from './memory-harness.ts'

conformance('the memory engine', memoryHarness)
