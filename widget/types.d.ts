// What an application can rely on.

/** What the gate says about an address. Treat a reason you do not know as "unconfirmed". */
export interface Answer {
  decision: "allow" | "warn" | "block";
  reason: string;
  did_you_mean: string | null;
  /** English, for a decision other than "allow". */
  message: string | null;
  /** false: a better answer may follow by itself, as another `gate:result`. */
  final: boolean;
  /** For your server's call of siteverify; the hidden field carries it. */
  token: string | null;
  token_expires_in: number | null;
  /** When the token expires, in Unix milliseconds: set on arrival. */
  until?: number;
}

export type StateName =
  | "idle"
  | "checking"
  | "ok"
  | "suggest"
  | "warn"
  | "blocked"
  | "unknown"
  | "error"
  | "expired";

/** How a check ended; without an answer when the gate could not be asked. */
export type Outcome = Partial<Answer> & { state: StateName; token: string };

/** As the `data-` attributes; what is given here goes before them. */
export interface Options {
  /** Where the gate is: "https://gate.example.com". Needed unless `data-url` says it. */
  url?: string;
  /** The site's public key, pk_… */
  sitekey?: string;
  action?: string;
  cdata?: string;
  validateOn?: "blur" | "input" | "submit";
  /** Milliseconds that typing must rest before the gate is asked. */
  debounce?: number | string;
  /** Longest time in milliseconds that a submit may be held. */
  timeoutMs?: number | string;
  responseFieldName?: string;
  /** Id of the element for messages. */
  messageTarget?: string;
  callback?: string | ((token: string) => void);
  /** Called with the HTTP status, 0 when there was none. */
  errorCallback?: string | ((status: number) => void);
  expiredCallback?: string | (() => void);
  language?: string;
  appearance?: "always" | "problems-only" | "none";
}

export interface Handle {
  readonly id: string;
  readonly input: HTMLInputElement;
  /** Check the present value, if it was not. Never rejects. */
  check(): Promise<Outcome>;
  getResponse(): string;
  isExpired(): boolean;
  /** Forget the answer. */
  reset(): void;
  /** Undo everything that was done to the page. */
  remove(): void;
}

/** Watch over one e-mail field. Attaching twice gives the first handle. */
export function attach(input: HTMLInputElement, options?: Options): Handle;

/** `window.SignupGate`, made by the script tag. Without an id the first field is meant. */
export interface SignupGate {
  ready(run: () => void): void;
  render(where: string | Element, options?: Options): string;
  check(id?: string): Promise<Outcome> | undefined;
  execute(id?: string): Promise<Outcome> | undefined;
  getResponse(id?: string): string | undefined;
  isExpired(id?: string): boolean | undefined;
  reset(id?: string): void;
  remove(id?: string): void;
}

/** The events, which bubble from the input. */
export interface GateEvents {
  "gate:statechange": CustomEvent<{ state: StateName; previous: StateName }>;
  /** Cancel it to show the answer yourself; then nothing is refused either. */
  "gate:result": CustomEvent<Answer>;
  /** Cancel it to show the suggestion yourself. */
  "gate:suggestion": CustomEvent<{ email: string; suggestion: string }>;
  "gate:suggestion-accepted": CustomEvent<{ email: string; suggestion: string }>;
  "gate:override": CustomEvent<{ email: string; reason?: string }>;
  "gate:expire": CustomEvent<void>;
  /** The gate could not be asked; status 0: there was no HTTP answer. */
  "gate:error": CustomEvent<{ status: number }>;
}

declare global {
  interface HTMLElementEventMap extends GateEvents {}
  interface Window {
    SignupGate?: SignupGate;
  }
}
