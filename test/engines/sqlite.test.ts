import { conformance } from '../conformance/index.ts'
import { sqliteHarness } from './sqlite-harness.ts'

conformance('the SQLite engine', sqliteHarness)
